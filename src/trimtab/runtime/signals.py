"""Ctrl-C, SIGTERM and SIGUSR1 as a question that a stage asks at its boundaries."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType


class StopFlag:
    """Name of the first signal, or "". A Ctrl-C after that raises ``KeyboardInterrupt`` at once."""

    def __init__(self, warn: Callable[[str], None]) -> None:
        self.name = ""
        self._warn = warn

    def __call__(self) -> str:
        return self.name

    def receive(self, number: int, frame: FrameType | None) -> None:
        """The handler. A second SIGTERM changes nothing: service managers repeat it before they kill."""
        if self.name:
            if number == signal.SIGINT:
                raise KeyboardInterrupt
            return
        self.name = signal.Signals(number).name
        self._warn(f"{self.name}: saving at the next boundary; Ctrl-C now stops at once")


STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
"""A person, a service manager, and Slurm's warning before the time limit (``--signal=USR1@120``)."""


def _to_stderr(line: str) -> None:
    """Past Python's buffers: a handler that prints into a ``print`` it interrupted is an error of its own."""
    with contextlib.suppress(OSError):  # a closed terminal must not stop the run from saving
        os.write(2, f"\n{line}\n".encode())


@contextlib.contextmanager
def stop_flag(warn: Callable[[str], None] = _to_stderr) -> Iterator[StopFlag]:
    """Listen for the length of the block; the old handlers come back afterwards.

    Outside the main thread Python allows no handlers: the flag then simply never rises.
    """
    flag = StopFlag(warn)
    if threading.current_thread() is not threading.main_thread():
        yield flag
        return
    before = {number: signal.signal(number, flag.receive) for number in STOPS}
    try:
        yield flag
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
