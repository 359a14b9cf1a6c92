"""The best weights so far, by a held-out number, beside the checkpoints."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from trimtab.errors import CheckpointError, Where
from trimtab.runtime.files import atomic_dir, sha256_file

_WEIGHTS = "weights.safetensors"


class Best:
    """Keeps copies of the trained parameters: those that had the smallest key when they were offered.

    Which one is the best is part of the algorithm's state, and a kill goes back to an older state. So each copy lies
    under its version, is on the disk before a checkpoint can name it, and none is removed while a checkpoint may: a
    run that goes back finds the copy that its state names, whatever was written since.
    """

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder
        self.key: list[float] | None = None
        self.version = -1
        self.sha256 = ""

    def offer(self, key: list[float], version: int, parameters: Mapping[str, nn.Parameter]) -> bool:
        """Save the parameters if ``key`` is smaller than the best one; True if they were taken.

        A key that is not finite is never taken: nothing could be smaller than a NaN afterwards.
        """
        if not all(map(math.isfinite, key)) or (self.key is not None and not key < self.key):
            return False
        self.key, self.version = key, version
        if self.folder is not None:
            tensors = {name: p.detach().contiguous() for name, p in parameters.items()}
            final = self.folder / f"{version:08d}"
            with atomic_dir(final) as folder:
                save_file(tensors, folder / _WEIGHTS, {"version": str(version)})
                self.sha256 = sha256_file(folder / _WEIGHTS)
        return True

    @torch.no_grad()
    def restore(self, parameters: Mapping[str, nn.Parameter]) -> None:
        """Put the best parameters back (nothing to do if none was ever offered).

        Raises:
            CheckpointError: the file is not the one that was saved.
        """
        if self.folder is None or self.key is None:
            return
        file = self.folder / f"{self.version:08d}" / _WEIGHTS
        if not file.is_file() or sha256_file(file) != self.sha256:
            raise CheckpointError(
                f"the best weights (of version {self.version}) are {'damaged' if file.is_file() else 'gone'}",
                where=Where(str(file)),
                fix="restore the file from a backup, or start the stage anew with --from",
            )
        saved = load_file(file)
        for name, parameter in parameters.items():
            parameter.copy_(saved[name])

    def state_dict(self) -> dict[str, object]:
        return {"key": self.key, "version": self.version, "sha256": self.sha256}

    def load_state_dict(self, state: Mapping[str, object]) -> None:
        self.key, self.version, self.sha256 = state["key"], state["version"], state["sha256"]  # type: ignore[assignment]
