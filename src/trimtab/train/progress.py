"""What a person sees while a stage trains: a live line on a terminal, a plain line now and then in a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.text import Text

_SHOWN = (
    "loss/nll",
    "loss/pair",
    "accuracy",
    "heldout/nll",
    "heldout/accuracy",
    "score/mean",
    "kl/reference_k1",
    "length/mean",
    "truncated",
    "explained_variance",
    "loss/policy",
    "loss/value",
)


class Progress:
    """An observer. ``total`` counts rows of the kind it follows: updates, or versions if the stage has rollouts."""

    def __init__(self, stage: str, total: int, kind: str, say: Callable[[str], None], *, every_s: float = 15.0) -> None:
        self.stage, self.total, self.kind, self.say, self.every_s = stage, total, kind, say, every_s
        self.spoken = 0.0
        self.latest: dict[str, float] = {}
        self.at = 0
        self.live: Live | None = None

    def __enter__(self) -> Progress:
        console = Console(file=sys.stderr)
        if console.is_terminal:
            self.live = Live(Text(f"{self.stage}: starting"), console=console, transient=True, refresh_per_second=4)
            self.live.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        if self.live is not None:
            self.live.__exit__(None, None, None)

    def __call__(self, row: Mapping[str, Any]) -> None:
        self.latest |= {name: row[name] for name in _SHOWN if row.get(name) is not None}
        if row["kind"] == "update" and self.kind == "update":
            self.at = row["update"] + 1
        elif row["kind"] == "version" and self.kind == "version":
            self.at = row["version"]
        numbers = "  ".join(f"{name} {value:.3g}" for name, value in self.latest.items())
        line = f"{self.stage} {self.at}/{self.total} {self.kind}s  {numbers}"
        if self.live is not None:
            self.live.update(Text(line))
            return
        now = time.monotonic()
        if now - self.spoken >= self.every_s or self.at == self.total:
            self.spoken = now
            self.say(line)
