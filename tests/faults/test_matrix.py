"""The gate part of the fault matrix: what CI runs of it, two cases at a time. ``make faults`` runs all of it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path
from queue import SimpleQueue

import pytest

from faults import area_space
from faults.ground import Case, Ground
from faults.lab import Server, serving
from faults.matrix import AREAS

pytestmark = pytest.mark.slow

WORKERS = 2


@pytest.fixture(scope="module")
def servers(server: Server) -> Iterator[SimpleQueue[Server]]:
    """Two servers; whoever runs a case takes one and gives it back."""
    with serving() as second:
        free = SimpleQueue[Server]()
        for each in (server, second):
            free.put(each)
        yield free


@pytest.mark.parametrize("name", [name for name in AREAS if AREAS[name].gate])
def test_every_gate_case_ends_as_promised(
    servers: SimpleQueue[Server], ground: Ground, tmp_path: Path, name: str
) -> None:
    numbers = count()

    def problem(case: Case) -> str:
        server, folder = servers.get(), tmp_path / str(next(numbers))
        try:
            found = case.problem(server, folder)
        finally:
            servers.put(server)
        shutil.rmtree(folder, ignore_errors=True)
        return f"{case.name}: {found}" if found else ""

    server = servers.get()
    every = list(AREAS[name].cases(ground, server))
    cases = [case for case in every if case.gate]
    servers.put(server)
    assert len(every) >= AREAS[name].full and len(cases) >= AREAS[name].gate
    assert len({case.name for case in every}) == len(every)
    with ThreadPoolExecutor(WORKERS) as pool:
        problems = [found for found in pool.map(problem, cases) if found]
    assert not problems, "\n".join([f"{len(problems)} of {len(cases)}:", *problems])


def test_a_small_disk_can_be_mounted(tmp_path: Path) -> None:
    """Where not, the gate has fewer cases of the area ``space``, and this says so."""
    if not area_space.may_mount(tmp_path):
        pytest.skip("this user may not mount a file system")
    small = [case.name for case in area_space.small_disks(Ground(tmp_path))]
    assert len(small) == 5
