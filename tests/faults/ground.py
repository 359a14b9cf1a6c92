"""What cases of the fault matrix start from: an unbroken run, and runs that stand before, or in, each of its stages."""

from __future__ import annotations

import fcntl
import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from e2e.tiny import content, lay_out
from faults.lab import KILLED, Done, Server, resumed
from faults.plant import Fault
from trimtab.train import checkpoint

STAGES = ("sft", "reward", "policy", "verdict")


@dataclass(frozen=True)
class Case:
    """One row of the matrix. ``problem(server, folder)`` says what is wrong, "" if nothing is; ``gate``: CI runs it."""

    name: str
    problem: Callable[[Server, Path], str]
    gate: bool


class Ground:
    """Folders that are made once and copied for every case; several threads and processes may ask for them."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def made(self, name: str, build: Callable[[Path], None]) -> Path:
        """``root/name``, built if it is not there. A build that was broken off is done again."""
        folder = self.root / re.sub(r"\W+", "-", name)
        with open(folder.with_name(f"{folder.name}.lock"), "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not folder.exists():
                new = folder.with_name(f"{folder.name}.new")
                shutil.rmtree(new, ignore_errors=True)
                build(new)
                new.rename(folder)
        return folder

    def whole(self, server: Server) -> Path:
        """The unbroken run of the whole chain."""

        def build(folder: Path) -> None:
            lay_out(folder)
            done = server.run(folder)
            assert done.code == 0, done.err

        return self.made("whole", build)

    def before(self, server: Server, stage: str) -> Path:
        """A run in which ``stage`` comes next, and a recipe that ends with it."""
        whole = self.whole(server)

        def build(folder: Path) -> None:
            shutil.copytree(whole, folder)
            end_with(folder / "recipe.yaml", stage)
            for later in STAGES[STAGES.index(stage) :]:
                shutil.rmtree(folder / "run" / "stages" / later)
            if stage == STAGES[0]:
                shutil.rmtree(folder / "run")

        return self.made(f"before {stage}", build)

    def broken(self, server: Server, stage: str, fault: Fault) -> Path:
        """A run that was killed in ``stage``."""
        start = self.before(server, stage)

        def build(folder: Path) -> None:
            shutil.copytree(start, folder)
            done = server.run(folder, faults=[fault], report=False)
            assert done.code == KILLED, done.err

        return self.made(f"broken {stage} {fault.target} {fault.n} {fault.when} {fault.match}", build)

    def different(self, server: Server, folder: Path, stage: str) -> str:
        """How the files of ``stage`` and of those before it differ from the unbroken run's; "" if not at all."""
        upto = tuple(f"stages/{name}/" for name in STAGES[: STAGES.index(stage) + 1])
        a, b = content(self.whole(server) / "run"), content(folder / "run")
        names = sorted(n for n in {*a, *b} if n.startswith(upto) and a.get(n) != b.get(n))
        return f"other bytes: {', '.join(names)}" if names else ""

    def goes_on(self, server: Server, folder: Path, stage: str, least: int = -1, mutations: Sequence[str] = ()) -> str:
        """Start again and compare; ``least``: the version from which it must continue, or a later one."""
        done = server.run(folder, report=False, mutations=mutations)
        if done.code:
            return ended(done)
        leftovers = [p.name for p in (folder / "run").rglob(".*") if p.name != ".lock"]
        if leftovers:
            return f"left over: {', '.join(leftovers)}"
        if least >= 0 and (resumed(folder / "run", stage) or [-1])[-1] < least:
            return f"version {least} was saved, and work was done again from {resumed(folder / 'run', stage)}"
        return self.different(server, folder, stage)


def ended(done: Done) -> str:
    return f"exit code {done.code}: {done.err.strip()[-600:]}"


def end_with(recipe: Path, stage: str) -> None:
    """Leave out the stages after one (the recipe is our own, stage by stage)."""
    text = recipe.read_text("utf-8")
    for later in STAGES[STAGES.index(stage) + 1 :]:
        text = text.split(f"\n  {later}:\n")[0] + "\n"
    recipe.write_text(text, "utf-8")


def intact(run: Path, stage: str) -> list[int]:
    """Versions of the checkpoints that verify, in order."""
    folders = sorted(f for f in (run / "stages" / stage / "checkpoints").glob("*") if f.name.isdigit())
    return [int(f.name) for f in folders if checkpoint.verify(f) == ""]
