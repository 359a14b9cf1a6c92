"""The best weights so far, by a held-out number, beside the checkpoints."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from trimtab.runtime.files import atomic_dir


class Best:
    """Keeps one copy of the trained parameters: those with the smallest key so far.

    The key and version are part of the algorithm's state; after a kill, versions that are trained again write the same
    files again.
    """

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder
        self.key: list[float] | None = None
        self.version = -1

    def offer(self, key: list[float], version: int, parameters: Mapping[str, nn.Parameter]) -> bool:
        """Save the parameters if ``key`` is smaller than the best one; True if they were taken."""
        if self.key is not None and not key < self.key:
            return False
        self.key, self.version = key, version
        if self.folder is not None:
            with atomic_dir(self.folder) as folder:
                tensors = {name: p.detach().contiguous() for name, p in parameters.items()}
                save_file(tensors, folder / "weights.safetensors", {"version": str(version)})
        return True

    @torch.no_grad()
    def restore(self, parameters: Mapping[str, nn.Parameter]) -> None:
        """Put the best parameters back (nothing to do if none was ever offered)."""
        if self.folder is None or self.key is None:
            return
        saved = load_file(self.folder / "weights.safetensors")
        for name, parameter in parameters.items():
            parameter.copy_(saved[name])

    def state_dict(self) -> dict[str, object]:
        return {"key": self.key, "version": self.version}

    def load_state_dict(self, state: Mapping[str, object]) -> None:
        self.key, self.version = state["key"], state["version"]  # type: ignore[assignment]
