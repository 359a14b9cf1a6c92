"""One driver per run directory."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from trimtab.errors import RunLocked, Where


@contextlib.contextmanager
def run_lock(path: Path) -> Iterator[None]:
    """Hold a lock file for the length of the block. The kernel drops it when the process ends, however it ends.

    Raises:
        RunLocked: another process holds it; the message names its pid.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(descriptor, 32, 0).decode(errors="replace").strip() or "unknown"
            raise RunLocked(
                f"process {holder} drives this run",
                where=Where(str(path.parent)),
                fix="wait for it, stop it with Ctrl-C, or choose another folder with --dir",
            ) from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        try:
            yield
        finally:
            # The file stays: deleting it would let a third process lock a name that a second one still holds open.
            os.ftruncate(descriptor, 0)
    finally:
        os.close(descriptor)
