"""SIGKILL from outside at random moments of every stage: loading, training, sampling, writing, reporting."""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator
from pathlib import Path

from faults.ground import STAGES, Case, Ground, ended
from faults.lab import KILLED, Server

GATE, FULL = 5, 50
"""Moments of each stage."""
TEN = {"gate": 1, "full": 5}
"""Runs that are killed ten times."""


def duration(ground: Ground, server: Server, stage: str) -> float:
    """Processor time of a launch that runs one stage, with its report, in seconds."""

    def build(folder: Path) -> None:
        shutil.copytree(ground.before(server, stage), folder)
        done = server.run(folder)
        assert done.code == 0, done.err
        (folder / "cpu").write_text(str(done.cpu))

    return float((ground.made(f"duration {stage}", build) / "cpu").read_text())


def killed_once(ground: Ground, server: Server, folder: Path, stage: str, share: float) -> str:
    moment = duration(ground, server, stage) * share
    while True:
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(ground.before(server, stage), folder)
        done = server.run(folder, kill_at=moment)
        if done.code == KILLED:
            return ground.goes_on(server, folder, stage)
        if done.code:
            return ended(done)
        moment *= 0.8  # it had ended before: this start was a quicker one


def killed_ten_times(ground: Ground, server: Server, folder: Path, seed: int) -> str:
    """The whole chain; each start gets a random share of what is left to do, and one to do a little at least."""
    shutil.copytree(ground.before(server, STAGES[-1]), folder)
    shutil.rmtree(folder / "run")
    chain, draw = sum(duration(ground, server, stage) for stage in STAGES), random.Random(f"ten {seed}")
    kills = 0
    while kills < 10:
        done = server.run(folder, kill_at=chain * draw.uniform(0.04, 0.14))
        if done.code == 0:
            return f"ended after {kills} kills"
        if done.code != KILLED:
            return ended(done)
        kills += 1
    return ground.goes_on(server, folder, STAGES[-1])


def cases(ground: Ground, server: Server) -> Iterator[Case]:
    for stage in STAGES:
        draw = random.Random(f"moments {stage}")
        named: set[str] = set()
        for number in range(FULL):
            share = draw.random()
            at = f"{share:.1%}" if f"{share:.1%}" not in named else f"{share:.4%}"  # two may be that near
            named.add(at)
            yield Case(
                f"{stage}: killed at {at} of its time",
                lambda server, folder, a=(stage, share): killed_once(ground, server, folder, *a),
                gate=number < GATE,
            )
    for seed in range(TEN["full"]):
        yield Case(
            f"the whole chain, killed ten times (seed {seed})",
            lambda server, folder, a=seed: killed_ten_times(ground, server, folder, a),
            gate=seed < TEN["gate"],
        )
