"""No room, no permission, a disk that fails: said in one sentence, nothing saved is lost, and with room it goes on."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from faults.ground import Case, Ground, ended, intact
from faults.lab import Done, Server
from faults.plant import Fault

START = Fault("trimtab.train.fit:_update", 4, stage="sft")
WRITERS: dict[str, tuple[str, str, int]] = {
    "a checkpoint's weights": ("trimtab.train.checkpoint:save_file", "master", 1),
    "a checkpoint's moments": ("trimtab.train.checkpoint:save_file", "exp_avg_sq", 1),
    "a log": ("trimtab.runtime.files:Ledger.mark", "", 1),
    "the best weights": ("trimtab.train.best:save_file", "", 1),
    "the model": ("trimtab.models.export:_save_weights", "", 1),
    "a manifest": ("os:replace", r"stages/sft/manifest\.json$", 2),
    "a rename": ("os:rename", r"checkpoints/\d+$", 1),
}
ERRORS: tuple[Any, ...] = ("ENOSPC", "EDQUOT", "EROFS", "EIO")


GATE = {("a log", "EDQUOT"), ("a rename", "EDQUOT"), ("a log", "EROFS"), ("a log", "EIO")}


def said(done: Done) -> str:
    if done.code != 1 or "Traceback" in done.err or "fix: " not in done.err or "trimtab: " not in done.err:
        return f"not said in a sentence: {ended(done)}"
    return ""


def laid(ground: Ground, server: Server, folder: Path) -> int:
    shutil.copytree(ground.broken(server, "sft", START), folder)
    return intact(folder / "run", "sft")[-1]


def write_fails(ground: Ground, server: Server, folder: Path, what: str, error: Any) -> str:
    least = laid(ground, server, folder)
    target, match, n = WRITERS[what]
    done = server.run(folder, faults=[Fault(target, n, match=match, do=error)], report=False)
    return said(done) or ground.goes_on(server, folder, "sft", least)


def files_cannot_grow(ground: Ground, server: Server, folder: Path, share: float) -> str:
    """RLIMIT_FSIZE: the system itself cuts a write short (EFBIG)."""
    least = laid(ground, server, folder)
    size = max(f.stat().st_size for f in (folder / "run").rglob("*.safetensors"))
    done = server.run(folder, file_size=max(1, int(size * share)), report=False)
    return said(done) or ground.goes_on(server, folder, "sft", least)


def may_mount(root: Path) -> bool:
    """Whether this user may mount a file system of his own (in a container often not)."""
    mount = shutil.which("mount")
    with tempfile.TemporaryDirectory(dir=root) as folder:
        made = mount and subprocess.run([mount, "-t", "tmpfs", "tmpfs", folder], capture_output=True).returncode == 0
        if made:
            subprocess.run(["umount", folder], check=True)
    return bool(made)


def on_a_small_disk(ground: Ground, server: Server, folder: Path, room: int, readonly: bool = False) -> str:
    """A real file system of its own, with ``room`` bytes left, or that can only be read."""
    source = ground.broken(server, "sft", START)
    least = intact(source / "run", "sft")[-1]
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", str(folder)], check=True)
    try:
        work = folder / "w"
        shutil.copytree(source, work)
        printed = folder.with_name(f"{folder.name}.printed")
        printed.mkdir()
        filler = folder / "filler"
        filler.write_bytes(b"x" * (0 if readonly else shutil.disk_usage(folder).free - room))
        if readonly:
            subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)
        problem = said(server.run(work, report=False, printed=printed))
        if readonly:
            subprocess.run(["mount", "-o", "remount,rw", str(folder)], check=True)
        filler.unlink()
        return problem or ground.goes_on(server, work, "sft", least)
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def cases(ground: Ground, server: Server) -> Iterator[Case]:
    for what in WRITERS:
        for error in ERRORS:
            yield Case(
                f"{error} while {what} is written",
                lambda server, folder, a=(what, error): write_fails(ground, server, folder, *a),
                gate=(what, error) in GATE,
            )
    for share in (0.9, 0.7, 0.5):
        yield Case(
            f"no file may grow beyond {share:.0%} of the weights",
            lambda server, folder, a=share: files_cannot_grow(ground, server, folder, a),
            gate=share == 0.5,
        )
    if may_mount(ground.root):
        yield from small_disks(ground)


def small_disks(ground: Ground) -> Iterator[Case]:
    for room in (0, 20_000, 50_000, 90_000):
        yield Case(
            f"a disk with {room:,} bytes left",
            lambda server, folder, a=room: on_a_small_disk(ground, server, folder, a),
            gate=room == 50_000,
        )
    yield Case(
        "a disk that can only be read",
        lambda server, folder: on_a_small_disk(ground, server, folder, 0, readonly=True),
        gate=True,
    )
