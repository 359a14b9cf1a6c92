"""Checkpoints are whole or absent, damage is found before a tensor is used, and the last good one wins."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from trimtab.errors import CheckpointError
from trimtab.train import checkpoint

TENSORS = {"master": {"a": torch.arange(6.0)}, "step": {"a": torch.tensor(3.0)}}


def write(root: Path, *versions: int, keep: int = 10) -> None:
    for version in versions:
        tensors = {k: {n: t + version for n, t in g.items()} for k, g in TENSORS.items()}
        checkpoint.save(root, version, tensors, {"version": version}, keep)


def test_round_trip(tmp_path: Path) -> None:
    write(tmp_path, 4)
    found = checkpoint.newest(tmp_path)
    assert found is not None and found.version == 4 and found.state == {"version": 4}
    assert torch.equal(found.tensors["master"]["a"], torch.arange(6.0) + 4)
    assert found.tensors["step"]["a"].item() == 7.0


def test_none_at_all_is_a_fresh_start(tmp_path: Path) -> None:
    assert checkpoint.newest(tmp_path / "absent") is None


def test_retention_keeps_the_newest(tmp_path: Path) -> None:
    write(tmp_path, 1, 2, 9, 10, keep=2)
    assert sorted(f.name for f in tmp_path.iterdir()) == ["00000009", "00000010"]


def damage(folder: Path, how: str) -> None:
    file = folder / "master.safetensors"
    if how == "flipped byte":
        data = bytearray(file.read_bytes())
        data[-1] ^= 1
        file.write_bytes(data)
    elif how == "truncated":
        file.write_bytes(file.read_bytes()[:-3])
    elif how == "deleted":
        file.unlink()
    elif how == "another step's file":
        file.write_bytes((folder.parent / "00000001" / "master.safetensors").read_bytes())
    elif how == "manifest gone":
        (folder / "manifest.json").unlink()
    elif how == "state edited":
        (folder / "state.json").write_text('{"version": 7}')
    elif how == "a file too many":
        (folder / "extra").write_text("x")
    elif how == "renamed folder":
        folder.rename(folder.with_name("00000003"))


@pytest.mark.parametrize(
    "how",
    [
        "flipped byte",
        "truncated",
        "deleted",
        "another step's file",
        "manifest gone",
        "state edited",
        "a file too many",
        "renamed folder",
    ],
)
def test_a_damaged_checkpoint_is_set_aside_and_the_previous_taken(tmp_path: Path, how: str) -> None:
    write(tmp_path, 1, 2)
    damage(tmp_path / "00000002", how)
    found = checkpoint.newest(tmp_path)
    assert found is not None and found.version == 1
    assert [f.name for f in sorted(tmp_path.iterdir())][1].startswith("damaged-"), "kept for the user to look at"
    again = checkpoint.newest(tmp_path)
    assert again is not None and again.version == 1


def test_all_damaged_is_an_error_and_not_a_silent_fresh_start(tmp_path: Path) -> None:
    write(tmp_path, 1)
    damage(tmp_path / "00000001", "flipped byte")
    with pytest.raises(CheckpointError, match=r"no checkpoint .* is intact"):
        checkpoint.newest(tmp_path)
