"""Every file operation of a piece of code by number, and a kill before, or in the middle of, any one of them.

The operations are those of Python (create, write, flush, fsync, rename, mkdir, unlink, rmdir, truncate) and the two
that libraries written in Rust do at one go (safetensors, tokenizers). A write through Python goes to the disk at once
while it is counted, so that a kill between two writes leaves what the first one wrote. Only paths below ``run`` count.
"""

from __future__ import annotations

import builtins
import functools
import io
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from faults.plant import owner_of

WRITES = ("write", "rust")
"""Operations that have a middle."""


class Ops:
    """Counts operations while ``depth`` is above 0, and kills the process at one of them.

    Args:
        kill: number of the operation (from 0), or -1: only record.
        cut: None = before it; else the share of a write's bytes that reached the file.
        lose: at the kill, bytes written in the window and not fsynced are lost, as a power cut may lose them.
    """

    def __init__(self, run: Path, kill: int, cut: float | None, lose: bool) -> None:
        self.run, self.kill, self.cut, self.lose = str(run.absolute()), kill, cut, lose
        self.depth = 0
        self.seen: list[dict[str, Any]] = []
        self.unsafe: set[tuple[int, int]] = set()
        self.safe: dict[tuple[int, int], int] = {}
        """Length of a file that is on the disk; 0 where it is not here."""

    def counts(self, path: str) -> bool:
        return self.depth > 0 and path.startswith(self.run)

    def at(self, kind: str, path: str) -> bool:
        """Note an operation; True if it is the one, and has a middle in which to die."""
        number = len(self.seen)
        self.seen.append({"op": kind, "path": os.path.relpath(path, self.run)})
        if number == self.kill:
            if self.cut is None or kind not in WRITES:
                self.die()
            return True
        return False

    def wrote(self, path: str) -> None:
        self.unsafe.add(_inode(os.stat(path)))

    def synced(self, status: os.stat_result) -> None:
        self.unsafe.discard(_inode(status))
        self.safe[_inode(status)] = status.st_size

    def die(self) -> None:
        if self.lose:
            for folder, _, names in os.walk(self.run):
                for path in (os.path.join(folder, name) for name in names):
                    inode = _inode(os.stat(path))
                    if inode in self.unsafe:
                        os.truncate(path, self.safe.get(inode, 0))
        os.kill(os.getpid(), signal.SIGKILL)


def _inode(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def _absolute(path: Any, dir_fd: int | None = None) -> str:
    text = os.fsdecode(path)
    base = os.getcwd() if dir_fd is None else os.readlink(f"/proc/self/fd/{dir_fd}")
    return os.path.normpath(os.path.join(base, text))


class _Writing:
    """A file opened for writing: each write is an operation, and unbuffered."""

    def __init__(self, file: Any, path: str, ops: Ops) -> None:
        self._own, self._path, self._ops = file, path, ops

    def write(self, data: Any) -> int:
        if not self._ops.counts(self._path):
            return self._own.write(data)
        if self._ops.at("write", self._path):
            self._own.write(data[: int(len(data) * (self._ops.cut or 0))])
            self._own.flush()
            self._ops.die()
        done = self._own.write(data)
        self._own.flush()
        self._ops.wrote(self._path)
        return done

    def flush(self) -> None:
        if self._ops.counts(self._path):
            self._ops.at("flush", self._path)
            self._ops.wrote(self._path)
        self._own.flush()

    def truncate(self, size: int | None = None) -> int:
        if self._ops.counts(self._path):
            self._ops.at("truncate", self._path)
        return self._own.truncate(size)

    def __enter__(self) -> _Writing:
        return self

    def __exit__(self, *_: object) -> None:
        self._own.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._own, name)

    def __iter__(self) -> Any:
        return iter(self._own)


def _watch_open(ops: Ops) -> None:
    original = builtins.open

    @functools.wraps(original)
    def watched(file: Any, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
        if isinstance(file, int) or not set(mode) & set("wax+"):
            return original(file, mode, *args, **kwargs)
        path = _absolute(file)
        if not path.startswith(ops.run):
            return original(file, mode, *args, **kwargs)
        if ops.counts(path):
            ops.at("open", path)
        made = original(file, mode, *args, **kwargs)
        if "a" in mode:  # what was there before this process is as safe as it will be
            status = os.fstat(made.fileno())
            ops.safe.setdefault(_inode(status), status.st_size)
        return _Writing(made, path, ops)

    builtins.open = io.open = watched  # type: ignore[assignment]


def _watch_path(ops: Ops, name: str, which: int = 0) -> None:
    """A function of ``os`` that takes paths; ``which`` argument is the one that counts."""
    original: Callable[..., Any] = getattr(os, name)

    @functools.wraps(original)
    def watched(*args: Any, **kwargs: Any) -> Any:
        path = _absolute(args[which], kwargs.get("dir_fd"))
        if ops.counts(path):
            ops.at(name, path)
        return original(*args, **kwargs)

    setattr(os, name, watched)


def _watch_fsync(ops: Ops) -> None:
    original = os.fsync

    def watched(descriptor: Any) -> None:
        number = descriptor if isinstance(descriptor, int) else descriptor.fileno()
        path = os.readlink(f"/proc/self/fd/{number}")
        if ops.counts(path):
            ops.at("fsync", path)
        original(number)
        ops.synced(os.fstat(number))

    os.fsync = watched


def _watch_rust(ops: Ops, target: str, path_of: Callable[[tuple[Any, ...], dict[str, Any]], str]) -> None:
    owner, name = owner_of(target)
    original = getattr(owner, name)

    @functools.wraps(original)
    def watched(*args: Any, **kwargs: Any) -> Any:
        path = path_of(args, kwargs)
        if not ops.counts(path):
            return original(*args, **kwargs)
        middle = ops.at("rust", path)
        result = original(*args, **kwargs)
        ops.wrote(path)
        if middle:
            os.truncate(path, int(os.stat(path).st_size * (ops.cut or 0)))
            ops.die()
        return result

    setattr(owner, name, watched)


def install(
    window: str, call: int, stage: str, *, kill: int = -1, cut: float | None = None, lose: bool = False, log: str = ""
) -> None:
    """Count the operations of one call of a function.

    Args:
        window: ``module:attribute`` of the function.
        call: which of its calls, from 1, while ``stage`` runs ("" = any).
        kill, cut, lose: see ``Ops``.
        log: file for what was seen when the call ends; then the process kills itself too.
    """
    from faults import plant

    ops = Ops(Path("run"), kill, cut, lose)
    _watch_open(ops)
    for name in ("mkdir", "unlink", "remove", "rmdir", "truncate"):
        _watch_path(ops, name)
    for name in ("rename", "replace"):
        _watch_path(ops, name, 1)
    _watch_fsync(ops)
    for module in ("trimtab.train.checkpoint", "trimtab.train.best"):
        _watch_rust(ops, f"{module}:save_file", lambda args, kwargs: _absolute(args[1]))
    _watch_rust(ops, "transformers.modeling_utils:safe_save_file", lambda args, kwargs: _absolute(args[1]))
    owner, name = owner_of(window)
    original = getattr(owner, name)
    calls = 0

    @functools.wraps(original)
    def watched(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        if stage and stage != plant.running():
            return original(*args, **kwargs)
        calls += 1
        if calls != call:
            return original(*args, **kwargs)
        ops.depth += 1
        try:
            return original(*args, **kwargs)
        finally:
            ops.depth -= 1
            if log:
                Path(log).write_text(json.dumps(ops.seen), "utf-8")
                os.kill(os.getpid(), signal.SIGKILL)
            if kill >= 0:  # fewer operations than were recorded: the case must not pass for one that was killed
                os._exit(98)

    setattr(owner, name, watched)
