"""SIGTERM, SIGINT and SIGUSR1 at places of every stage, and two Ctrl-C: saved, said, and continued exactly."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from faults.ground import Case, Ground, ended
from faults.lab import STOPPED, Server
from faults.plant import Fault

UPDATE, DRAW = "trimtab.train.fit:_update", "trimtab.sampling.local:LocalSampler._draw"
PLACES: dict[str, tuple[str, str, int]] = {
    "loading": ("sft", "trimtab.algorithms.sft.stage:load_lm", 1),
    "imitating": ("sft", UPDATE, 3),
    "ranking": ("reward", UPDATE, 5),
    "sampling": ("policy", DRAW, 2),
    "answering": ("verdict", DRAW, 2),
}
SIGNALS: tuple[Any, ...] = ("SIGTERM", "SIGINT", "SIGUSR1")
SECONDS = 30.0
"""Of processor time, from start to end, within which a tiny run has to be saved and gone."""


def stops(ground: Ground, server: Server, folder: Path, place: str, name: Any) -> str:
    stage, target, n = PLACES[place]
    shutil.copytree(ground.before(server, stage), folder)
    done = server.run(folder, faults=[Fault(target, n, stage=stage, do=name)], report=False)
    if done.code != STOPPED or "Traceback" in done.err:
        return ended(done)
    if f"{name}: " not in done.err or "run the same command again to continue" not in done.err:
        return f"not said: {done.err}"
    if done.cpu > SECONDS:
        return f"took {done.cpu:.0f} s"
    return ground.goes_on(server, folder, stage)


def stops_at_once(ground: Ground, server: Server, folder: Path, place: str) -> str:
    """Ctrl-C, and again before the boundary."""
    stage, target, n = PLACES[place]
    shutil.copytree(ground.before(server, stage), folder)
    faults = [Fault(target, n, stage=stage, do="SIGINT"), Fault(target, n + 1, stage=stage, do="SIGINT")]
    if target == UPDATE:
        faults[1] = Fault("trimtab.runtime.engine:Engine.step", n, stage=stage, do="SIGINT")
    if place == "loading":
        faults[1] = Fault("trimtab.algorithms.sft.stage:Bundle", 1, stage=stage, do="SIGINT")
    started = time.monotonic()
    done = server.run(folder, faults=faults, report=False)
    if done.code != 130 or "stopped at once" not in done.err or "Traceback" in done.err:
        return f"after {time.monotonic() - started:.0f} s: {ended(done)}"
    return ground.goes_on(server, folder, stage)


def cases(ground: Ground, server: Server) -> Iterator[Case]:
    for place in PLACES:
        for name in SIGNALS:
            yield Case(
                f"{name} while {place}",
                lambda server, folder, a=(place, name): stops(ground, server, folder, *a),
                gate=name == "SIGUSR1",  # the others: test_stop.py
            )
        yield Case(
            f"two Ctrl-C while {place}",
            lambda server, folder, a=place: stops_at_once(ground, server, folder, a),
            gate=place in ("loading", "sampling"),
        )
