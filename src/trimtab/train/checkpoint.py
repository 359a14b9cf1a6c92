"""Checkpoints that are whole or absent: ``checkpoints/<version>/`` with a manifest of sha256 sums.

Written to a temporary folder, fsynced, renamed, the parent fsynced, and only then older ones removed. The newest folder
that verifies wins; one that does not is set aside under ``damaged-<version>``, never deleted. safetensors and JSON
only.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

from trimtab.errors import CheckpointError, DataError
from trimtab.runtime.files import atomic_dir, fsync_dir, read_json, sha256_file

_LOG = logging.getLogger(__name__)
_MANIFEST = "manifest.json"
_STATE = "state.json"
_DAMAGED = "damaged-"


@dataclass(frozen=True)
class Checkpoint:
    """What was saved: tensors by file and name, and the JSON state."""

    version: int
    tensors: dict[str, dict[str, Tensor]]
    state: dict[str, Any]


def save(
    root: Path, version: int, tensors: Mapping[str, Mapping[str, Tensor]], state: Mapping[str, Any], keep: int
) -> Path:
    """Write ``root/<version>`` and then remove all but the newest ``keep``.

    Args:
        root: the stage's ``checkpoints`` folder.
        version: name of the checkpoint; zero-padded on disk so that names sort.
        tensors: one safetensors file per key.
        state: JSON-able.
        keep: newest checkpoints to keep, at least 1.
    """
    final = root / f"{version:08d}"
    with atomic_dir(final) as folder:
        for name, group in tensors.items():
            save_file(
                {key: value.detach().contiguous() for key, value in group.items()}, folder / f"{name}.safetensors"
            )
        (folder / _STATE).write_text(json.dumps(state, allow_nan=False), encoding="utf-8")
        sums = {file.name: sha256_file(file) for file in sorted(folder.iterdir())}
        (folder / _MANIFEST).write_text(json.dumps({"version": version, "sha256": sums}, indent=1), encoding="utf-8")
    for old in _folders(root)[: -max(1, keep)]:
        shutil.rmtree(old)
    return final


def newest(root: Path) -> Checkpoint | None:
    """The newest checkpoint that verifies, or None if there is none at all.

    Damaged ones are renamed to ``damaged-<version>`` so that they are kept, seen and not tried again.

    Raises:
        CheckpointError: there are checkpoints, and every one of them is damaged; also at every later start, until
            someone decides, for to begin anew in silence would hide that work was lost.
    """
    problems = []
    for folder in reversed(_folders(root)):
        problem = verify(folder)
        if not problem:
            return _read(folder)
        problems.append(f"{folder.name}: {problem}")
        aside = root / f"{_DAMAGED}{folder.name}"
        if aside.exists():
            shutil.rmtree(aside)
        folder.rename(aside)
        fsync_dir(root)
        _LOG.warning("checkpoint %s is damaged (%s) and set aside; looking at the one before", folder, problem)
    problems = problems or sorted(f"{folder.name}: found so before" for folder in root.glob(f"{_DAMAGED}*"))
    if problems:
        raise CheckpointError(
            f"no checkpoint in {root} is intact ({'; '.join(problems)})",
            fix="start the stage anew with --from, or restore the folder from a backup",
        )
    return None


def verify(folder: Path) -> str:
    """What is wrong with a checkpoint, or "" if every file is there with the right sum and nothing else is."""
    try:
        manifest = read_json(folder / _MANIFEST)
        sums = dict(manifest["sha256"])
        version = int(manifest["version"])
    except (DataError, KeyError, TypeError, ValueError) as error:
        return f"manifest unreadable ({error})"
    if f"{version:08d}" != folder.name:
        return f"manifest is of version {version}"
    present = {file.name for file in folder.iterdir()} - {_MANIFEST}
    if present != set(sums):
        return f"files differ from the manifest: {sorted(present ^ set(sums))}"
    for name, expected in sums.items():
        if sha256_file(folder / name) != expected:
            return f"{name} has another sha256"
    return ""


def _read(folder: Path) -> Checkpoint:
    tensors = {file.stem: load_file(file) for file in sorted(folder.glob("*.safetensors"))}
    return Checkpoint(int(folder.name), tensors, read_json(folder / _STATE))


def _folders(root: Path) -> list[Path]:
    if not root.is_dir():
        return []
    return sorted(folder for folder in root.iterdir() if folder.is_dir() and folder.name.isdigit())
