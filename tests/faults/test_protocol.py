"""Every step of the save protocol is needed: with one undone, a case that otherwise ends well ends badly.

A case is a launch with faults, perhaps some damage, and a launch that must end as an unbroken run. It is run as the
code is, and then once for each step that it guards with that step undone (``plant.MUTATIONS``): then it must fail, and
for the reason given. An unbroken run under the same mutation is what such a run is compared with, so it is the kill
that makes the difference.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from e2e.tiny import content, lay_out
from faults.lab import KILLED, Server, resumed
from faults.plant import MUTATIONS, Fault

pytestmark = pytest.mark.slow

UPDATE = "trimtab.train.fit:_update"


def flip_a_bit(run: Path) -> None:
    """Bit rot in the newest weights."""
    file = sorted((run / "stages" / "sft" / "checkpoints").glob("*/master.safetensors"))[-1]
    data = bytearray(file.read_bytes())
    data[-3] ^= 64
    file.write_bytes(data)


@dataclass(frozen=True)
class Case:
    """``resumes``: stage -> versions from which the last launch must have continued (work that must not be lost)."""

    fault: Fault
    stage: str
    resumes: list[int]
    damage: Callable[[Path], None] = lambda run: None


CASES = {
    "half a file in the first save": Case(
        Fault("trimtab.train.checkpoint:save_file", 1, "half", "master", "sft"), "sft", []
    ),
    "the first checkpoint just renamed": Case(Fault("os:rename", 1, "after", "checkpoints/00000000$"), "sft", [0]),
    "a checkpoint about to be renamed": Case(Fault("os:rename", 1, "before", "checkpoints/00000003$"), "sft", [2]),
    "a later checkpoint just renamed": Case(Fault("os:rename", 1, "after", "checkpoints/00000003$"), "sft", [3]),
    "between two checkpoints": Case(Fault(UPDATE, 4, stage="sft"), "sft", [3]),
    "a bit flipped in the newest": Case(Fault(UPDATE, 4, stage="sft"), "sft", [2], flip_a_bit),
    "rollouts beyond the checkpoint": Case(Fault("trimtab.train.checkpoint:save", 2, stage="policy"), "policy", [1]),
    "about to export": Case(Fault("os:rename", 1, "before", "sft/model$"), "sft", [6]),
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
}
"""Step undone -> the case that must notice, and how it does."""


def unbroken(server: Server, folder: Path, mutations: Sequence[str] = ()) -> Path:
    lay_out(folder, recipe="short.yaml")
    done = server.run(folder, mutations=mutations)
    assert done.code == 0, done.err
    return folder


def problem_of(server: Server, case: Case, folder: Path, whole: Path, mutations: Sequence[str] = ()) -> str:
    """What is wrong with the end of a broken run; "" if nothing is."""
    lay_out(folder, recipe="short.yaml")
    run = folder / "run"
    done = server.run(folder, faults=[case.fault], mutations=mutations)
    assert done.code == KILLED, done.err
    case.damage(run)
    done = server.run(folder, mutations=mutations)
    if done.code:
        return f"exit code {done.code}: {done.err}"
    if resumed(run, case.stage) != case.resumes:
        return f"continued from {resumed(run, case.stage)}"
    a, b = content(whole / "run"), content(run)
    different = [name for name in sorted(a.keys() | b.keys()) if a.get(name) != b.get(name)]
    return f"other bytes: {', '.join(different)}" if different else ""


@pytest.mark.parametrize("name", CASES)
def test_a_case_ends_well(server: Server, short: Path, tmp_path: Path, name: str) -> None:
    assert problem_of(server, CASES[name], tmp_path, short) == ""


def test_decoding_is_decided_by_the_weights_a_stage_began_with(server: Server, tmp_path: Path) -> None:
    """Where cached decoding is right for a stage's first weights, and just beyond the bound for later ones."""
    case = CASES["rollouts beyond the checkpoint"]
    whole = unbroken(server, tmp_path / "whole", ["marginal_parity"])
    assert problem_of(server, case, tmp_path / "broken", whole, ["marginal_parity"]) == ""


def test_every_mutation_has_a_guard() -> None:
    assert set(GUARDS) == set(MUTATIONS) - {"marginal_parity"}, "which is a machine, not a mutation"


@pytest.mark.parametrize("mutation", GUARDS)
def test_a_step_undone_is_noticed(server: Server, tmp_path: Path, mutation: str) -> None:
    case, reason = GUARDS[mutation]
    whole = unbroken(server, tmp_path / "whole", [mutation])
    problem = problem_of(server, CASES[case], tmp_path / "broken", whole, [mutation])
    assert problem.startswith(reason), problem or f"nobody noticed that {MUTATIONS[mutation].__doc__}"
