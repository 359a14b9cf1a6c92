"""The order in which a save reaches the disk, seen call by call; and what a later start makes of damage.

A kill cannot show a missing fsync (the system keeps what a dead process wrote), so the calls themselves are watched.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from trimtab.errors import CheckpointError
from trimtab.runtime import files
from trimtab.runtime.files import atomic_dir, disk_full, remove_leftovers
from trimtab.train import checkpoint


def save(root: Path, version: int, keep: int = 1) -> None:
    checkpoint.save(root, version, {"master": {"a": torch.arange(4.0) + version}}, {"v": version}, keep)


class Watch:
    """What was called on which path: ``fsync``, ``rename`` (its destination), ``rmtree``."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls: list[tuple[str, str]] = []
        self.at_rename: dict[str, list[str]] = {}
        fsync, rename, rmtree = os.fsync, os.rename, shutil.rmtree

        def watch_fsync(descriptor: int) -> None:
            self.calls.append(("fsync", os.readlink(f"/proc/self/fd/{descriptor}")))
            fsync(descriptor)

        def watch_rename(source: Any, target: Any) -> None:
            self.calls.append(("rename", str(target)))
            self.at_rename[str(target)] = [str(source), *(str(path) for path in Path(source).rglob("*"))]
            rename(source, target)

        def watch_rmtree(path: Any, *args: Any, **kwargs: Any) -> None:
            if Path(path).exists():
                self.calls.append(("rmtree", str(path)))
            rmtree(path, *args, **kwargs)

        monkeypatch.setattr(os, "fsync", watch_fsync)
        monkeypatch.setattr(os, "rename", watch_rename)
        monkeypatch.setattr(shutil, "rmtree", watch_rmtree)

    def problem(self, final: Path, old: Path) -> str:
        """What is wrong with the order of a save of ``final`` after which ``old`` is removed; "" if nothing is."""
        renamed = self.calls.index(("rename", str(final)))
        written = self.at_rename[str(final)]
        unsafe = [path for path in written if ("fsync", path) not in self.calls[:renamed]]
        if len(written) < 3 or unsafe:
            return f"renamed before it was on the disk: {unsafe}"
        if ("rmtree", str(old)) not in self.calls:
            return "the older one was not removed"
        removed = self.calls.index(("rmtree", str(old)))
        if ("fsync", str(final.parent)) not in self.calls[renamed:removed]:
            return "the older one was removed before the new name was on the disk"
        return ""


def test_bytes_then_name_then_removal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path, 1)
    watch = Watch(monkeypatch)
    save(tmp_path, 2)
    assert watch.problem(tmp_path / "00000002", tmp_path / "00000001") == ""


@pytest.mark.parametrize(
    ("undone", "how", "says"),
    [
        ("_fsync_tree", lambda folder: None, "renamed before"),
        ("fsync_dir", lambda folder: None, "renamed before"),
    ],
)
def test_the_watch_sees_a_step_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, undone: str, how: Callable[..., None], says: str
) -> None:
    save(tmp_path, 1)
    monkeypatch.setattr(files, undone, how)
    watch = Watch(monkeypatch)
    save(tmp_path, 2)
    assert watch.problem(tmp_path / "00000002", tmp_path / "00000001").startswith(says)


def test_the_watch_sees_an_early_removal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path, 1)
    watch = Watch(monkeypatch)
    shutil.rmtree(tmp_path / "00000001")
    save(tmp_path, 2)
    assert "removed before the new name" in watch.problem(tmp_path / "00000002", tmp_path / "00000001")


def test_damage_is_told_and_stays_an_error_until_someone_decides(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    save(tmp_path, 1)
    (tmp_path / "00000001" / "state.json").write_text("{}")
    with caplog.at_level(logging.WARNING), pytest.raises(CheckpointError, match="state.json has another sha256"):
        checkpoint.newest(tmp_path)
    assert "is damaged" in caplog.text
    with pytest.raises(CheckpointError, match=r"damaged-00000001.* found so before"):
        checkpoint.newest(tmp_path)
    save(tmp_path, 3)
    found = checkpoint.newest(tmp_path)
    assert found is not None and found.version == 3


def test_a_folder_moved_aside_comes_back_when_the_new_one_cannot_take_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    final = tmp_path / "model"
    with atomic_dir(final) as folder:
        (folder / "weights").write_text("old")
    rename = os.rename

    def refused(source: Any, target: Any) -> None:
        if Path(source).name.startswith(".model.tmp"):
            raise OSError(28, "No space left on device")
        rename(source, target)

    monkeypatch.setattr(os, "rename", refused)
    with pytest.raises(OSError, match="No space"), atomic_dir(final) as folder:
        (folder / "weights").write_text("new")
    assert (final / "weights").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["model"] and remove_leftovers(tmp_path) == []


def test_a_full_disk_is_known_by_its_number() -> None:
    class FromRust(Exception):
        """safetensors has an exception of its own."""

    assert disk_full(OSError(28, "x")) and disk_full(OSError(122, "x")) and disk_full(OSError(27, "x"))
    assert disk_full(FromRust("Error while serializing: I/O error: No space left on device (os error 28)"))
    assert not disk_full(OSError(13, "x")) and not disk_full(FromRust("Permission denied (os error 13)"))
    assert not disk_full(ValueError("28"))
