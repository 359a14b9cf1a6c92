"""A full disk: said in words, nothing saved before is lost, and with room again the run continues exactly."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from e2e.tiny import lay_out
from faults.lab import STOPPED, Done, Server, assert_same, resumed
from faults.plant import Fault
from trimtab.train import checkpoint

pytestmark = pytest.mark.slow

STOP_AT_3 = Fault("trimtab.train.fit:_update", 3, stage="sft", do="SIGTERM")


def assert_said(done: Done) -> None:
    assert done.code == 1, done.err
    assert "trimtab: run: the disk had no room" in done.err and "Traceback" not in done.err
    assert "fix: make room, then run the same command again" in done.err


def assert_intact(run: Path) -> None:
    """The checkpoint of version 3 is whole, is the newest, and no half of another lies beside it."""
    names = sorted(folder.name for folder in (run / "stages" / "sft" / "checkpoints").iterdir())
    assert names == ["00000002", "00000003"]
    assert checkpoint.verify(run / "stages" / "sft" / "checkpoints" / "00000003") == ""


def assert_continues(server: Server, folder: Path, short: Path) -> None:
    done = server.run(folder)
    assert done.code == 0, done.err
    assert resumed(folder / "run", "sft")[-1] == 3
    assert_same(short / "run", folder / "run")


def test_files_cannot_grow(server: Server, short: Path, tmp_path: Path) -> None:
    """RLIMIT_FSIZE: the weights of a checkpoint are cut short by the system itself (EFBIG)."""
    lay_out(tmp_path, recipe="short.yaml")
    assert server.run(tmp_path, faults=[STOP_AT_3]).code == STOPPED
    master = tmp_path / "run" / "stages" / "sft" / "checkpoints" / "00000003" / "master.safetensors"
    done = server.run(tmp_path, file_size=master.stat().st_size // 2)
    assert_said(done)
    assert_intact(tmp_path / "run")
    assert_continues(server, tmp_path, short)


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[bool]:
    """A file system of its own at ``folder``, where this user may mount one; False where not."""
    folder.mkdir()
    mounted = False
    if mount := shutil.which("mount"):
        command = [mount, "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
        mounted = subprocess.run(command, capture_output=True).returncode == 0
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_the_disk_is_full(server: Server, short: Path, tmp_path: Path) -> None:
    """A real file system without room (ENOSPC); for users who may not mount one, the error alone."""
    with small_disk(tmp_path / "disk", "8m") as mounted:
        folder = lay_out(tmp_path / "disk" / "w", recipe="short.yaml")
        assert server.run(folder, faults=[STOP_AT_3]).code == STOPPED
        options: dict[str, Any] = {}
        filler = folder / "filler"
        if mounted:
            free = shutil.disk_usage(folder).free
            master = folder / "run" / "stages" / "sft" / "checkpoints" / "00000003" / "master.safetensors"
            filler.write_bytes(b"x" * (free - 24 * 1024 - master.stat().st_size))
        else:
            options["faults"] = [Fault("trimtab.train.checkpoint:save_file", 2, do="ENOSPC")]
        assert_said(server.run(folder, **options))
        assert_intact(folder / "run")
        filler.unlink(missing_ok=True)
        assert_continues(server, folder, short)


@pytest.mark.parametrize(
    ("target", "match"),
    [
        ("trimtab.runtime.files:Ledger.mark", ""),
        ("trimtab.train.best:save_file", ""),
        ("trimtab.models.export:_save_weights", ""),
        ("os:replace", r"stages/sft/manifest\.json$"),
        ("os:replace", r"report\.html$"),
    ],
)
def test_no_room_for_anything_else(server: Server, short: Path, tmp_path: Path, target: str, match: str) -> None:
    """Logs, best weights, the exported model, a manifest. A report alone is not worth the run: it goes on."""
    lay_out(tmp_path, recipe="short.yaml")
    done = server.run(tmp_path, faults=[Fault(target, match=match, do="ENOSPC")])
    if "report" in match:
        assert done.code == 0 and "the report could not be written" in done.out
    else:
        assert_said(done)
        assert server.run(tmp_path).code == 0
    assert_same(short / "run", tmp_path / "run")
