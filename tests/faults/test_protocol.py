"""Every step of the save protocol is needed: with one undone, a case that otherwise ends well ends badly.

The cases are run as the code is, and then once for each step that they guard with that step undone
(``plant.MUTATIONS``): then one must fail, and for the reason given (``area_steps.GUARDS``).
"""

from __future__ import annotations

from pathlib import Path

import pytest

from faults.area_steps import CASES, GUARDS, OF_SAVES, is_noticed, problem_of, unbroken
from faults.ground import Ground
from faults.lab import Server
from faults.plant import MUTATIONS

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("name", CASES)
def test_a_case_ends_well(server: Server, short: Path, tmp_path: Path, name: str) -> None:
    assert problem_of(server, CASES[name], tmp_path, short) == ""


@pytest.mark.parametrize("name", OF_SAVES)
def test_a_case_of_the_matrix_ends_well(server: Server, ground: Ground, tmp_path: Path, name: str) -> None:
    assert OF_SAVES[name](ground, server, tmp_path / "broken") == ""


def test_decoding_is_decided_by_the_weights_a_stage_began_with(server: Server, tmp_path: Path) -> None:
    """Where cached decoding is right for a stage's first weights, and just beyond the bound for later ones."""
    case = CASES["rollouts beyond the checkpoint"]
    whole = unbroken(server, tmp_path / "whole", ["marginal_parity"])
    assert problem_of(server, case, tmp_path / "broken", whole, ["marginal_parity"]) == ""


def test_every_mutation_has_a_guard() -> None:
    assert set(GUARDS) == set(MUTATIONS)


@pytest.mark.parametrize("mutation", GUARDS)
def test_a_step_undone_is_noticed(server: Server, ground: Ground, tmp_path: Path, mutation: str) -> None:
    assert is_noticed(ground, server, tmp_path / "w", mutation) == ""
