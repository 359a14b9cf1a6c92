"""Ctrl-C and SIGTERM as a question that a stage asks at its boundaries."""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType


class StopFlag:
    """Name of the first SIGINT or SIGTERM, or "". A Ctrl-C after that raises ``KeyboardInterrupt`` at once."""

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


def _to_stderr(line: str) -> None:
    print(f"\n{line}", file=sys.stderr, flush=True)


@contextlib.contextmanager
def stop_flag(warn: Callable[[str], None] = _to_stderr) -> Iterator[StopFlag]:
    """Listen for the length of the block; the old handlers come back afterwards.

    Outside the main thread Python allows no handlers: the flag then simply never rises.
    """
    flag = StopFlag(warn)
    if threading.current_thread() is not threading.main_thread():
        yield flag
        return
    before = {number: signal.signal(number, flag.receive) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield flag
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
