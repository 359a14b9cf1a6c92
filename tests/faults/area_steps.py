"""One step of the save protocol undone: a case that otherwise ends well has to end badly, for the reason given."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from e2e.tiny import content, lay_out
from faults import area_saves
from faults.area_saves import damage_newest
from faults.ground import Case, Ground
from faults.lab import KILLED, Server, resumed
from faults.plant import Fault

UPDATE = "trimtab.train.fit:_update"


@dataclass(frozen=True)
class Broken:
    """A launch that is killed, perhaps damage, and a launch that must end as an unbroken run (``short.yaml``).

    ``resumes``: the versions from which the last launch must have continued (work that must not be lost).
    """

    fault: Fault
    stage: str
    resumes: list[int]
    damage: Callable[[Path], None] = lambda run: None


CASES = {
    "half a file in the first save": Broken(
        Fault("trimtab.train.checkpoint:save_file", 1, "half", "master", "sft"), "sft", []
    ),
    "the first checkpoint just renamed": Broken(Fault("os:rename", 1, "after", "checkpoints/00000000$"), "sft", [0]),
    "a checkpoint about to be renamed": Broken(Fault("os:rename", 1, "before", "checkpoints/00000003$"), "sft", [2]),
    "a later checkpoint just renamed": Broken(Fault("os:rename", 1, "after", "checkpoints/00000003$"), "sft", [3]),
    "between two checkpoints": Broken(Fault(UPDATE, 4, stage="sft"), "sft", [3]),
    "a bit flipped in the newest": Broken(Fault(UPDATE, 4, stage="sft"), "sft", [2], damage_newest),
    "rollouts beyond the checkpoint": Broken(Fault("trimtab.train.checkpoint:save", 2, stage="policy"), "policy", [1]),
    "about to export": Broken(Fault("os:rename", 1, "before", "sft/model$"), "sft", [6]),
}

GUARDS = {
    "save_in_place": ("half a file in the first save", "exit code 5"),
    "manifest_after_rename": ("the first checkpoint just renamed", "exit code 5"),
    "remove_before_save": ("a checkpoint about to be renamed", "continued from []"),
    "mark_without_writing": ("a later checkpoint just renamed", "exit code 5"),
    "forget_moments": ("between two checkpoints", "other bytes: stages/policy/"),
    "believe_everything": ("a bit flipped in the newest", "continued from [3]"),
    "never_cut_back": ("rollouts beyond the checkpoint", "other bytes: "),
    "decide_late": ("rollouts beyond the checkpoint", "other bytes: "),
    "forget_state": ("rollouts beyond the checkpoint", "other bytes: "),
    "finish_before_export": ("about to export", "exit code 4: trimtab: cannot load run/stages/sft/model"),
    "forget_lengths": ("killed before a checkpoint of PPO", "other bytes: stages/policy/"),
    "never_fsync_files": ("power lost when a checkpoint has its name", "the newest checkpoint, "),
}
"""Step undone -> the case that must notice, and how it does. The last two are of ``area_saves``."""


def unbroken(server: Server, folder: Path, mutations: Sequence[str] = ()) -> Path:
    lay_out(folder, recipe="short.yaml")
    done = server.run(folder, mutations=mutations, report=False)
    assert done.code == 0, done.err
    return folder


def problem_of(server: Server, case: Broken, folder: Path, whole: Path, mutations: Sequence[str] = ()) -> str:
    """What is wrong with the end of a broken run; "" if nothing is."""
    lay_out(folder, recipe="short.yaml")
    run = folder / "run"
    done = server.run(folder, faults=[case.fault], mutations=mutations, report=False)
    assert done.code == KILLED, done.err
    case.damage(run)
    done = server.run(folder, mutations=mutations, report=False)
    if done.code:
        return f"exit code {done.code}: {done.err}"
    if resumed(run, case.stage) != case.resumes:
        return f"continued from {resumed(run, case.stage)}"
    a, b = content(whole / "run"), content(run)
    different = [name for name in sorted(a.keys() | b.keys()) if a.get(name) != b.get(name)]
    return f"other bytes: {', '.join(different)}" if different else ""


def power_lost(ground: Ground, server: Server, folder: Path, mutations: tuple[str, ...] = ()) -> str:
    """Killed right after a checkpoint got its name; whatever was not fsynced is gone."""
    name = "sft: a later checkpoint"
    seen = area_saves.operations(ground, server, name)
    after = next(i for i, op in enumerate(seen) if op["op"] == "rename" and "checkpoints/" in op["path"]) + 1
    return area_saves.problem_of(ground, server, folder, name, after, lose=True, mutations=mutations)


def before_a_checkpoint(ground: Ground, server: Server, folder: Path, mutations: tuple[str, ...] = ()) -> str:
    """In the chain, whose rewards are debiased by length: what a length has told must outlive a kill."""
    return area_saves.problem_of(ground, server, folder, "ppo: a checkpoint", 0, mutations=mutations)


OF_SAVES = {
    "power lost when a checkpoint has its name": power_lost,
    "killed before a checkpoint of PPO": before_a_checkpoint,
}


def is_noticed(ground: Ground, server: Server, folder: Path, mutation: str) -> str:
    """ "" if the guard's case ends badly with the step undone, and for its reason."""
    case, reason = GUARDS[mutation]
    if case in OF_SAVES:
        problem = OF_SAVES[case](ground, server, folder, (mutation,))
    else:
        # The unbroken run has the same step undone, so it is the kill that makes the difference.
        whole = unbroken(server, folder / "whole", [mutation])
        problem = problem_of(server, CASES[case], folder / "broken", whole, [mutation])
    return "" if problem.startswith(reason) else f"nobody noticed: {problem!r}"


def cases(ground: Ground, server: Server) -> Iterator[Case]:
    for mutation in GUARDS:
        yield Case(
            f"{mutation}: {GUARDS[mutation][0]}",
            lambda server, folder, a=mutation: is_noticed(ground, server, folder, a),
            gate=False,  # test_protocol.py
        )
