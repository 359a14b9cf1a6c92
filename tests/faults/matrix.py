"""The fault matrix: its areas, and how many cases the gate and the full run must have."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from faults import (
    area_damage,
    area_drift,
    area_moments,
    area_numbers,
    area_saves,
    area_signals,
    area_space,
    area_steps,
)
from faults.ground import Case, Ground
from faults.lab import Server


@dataclass(frozen=True)
class Area:
    """``gate``, ``full``: the least numbers of cases that there must be (where nothing can be mounted)."""

    cases: Callable[[Ground, Server], Iterator[Case]]
    gate: int
    full: int


AREAS: dict[str, Area] = {
    "saves": Area(area_saves.cases, 60, 240),
    "moments": Area(area_moments.cases, 21, 205),
    "signals": Area(area_signals.cases, 7, 20),
    "space": Area(area_space.cases, 5, 31),
    "damage": Area(area_damage.cases, 40, 150),
    "numbers": Area(area_numbers.cases, 12, 24),
    "drivers": Area(area_drift.driver_cases, 2, 3),
    "drift": Area(area_drift.cases, 8, 8),
    "steps": Area(area_steps.cases, 0, 12),
}
"""By the names of ``areas.TITLES``; ``steps`` runs in CI as test_protocol.py."""
