"""One server of forked launches for all fault tests, and the unbroken runs that broken ones are compared with."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from e2e.tiny import lay_out
from faults.ground import Ground
from faults.lab import Server, serving


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    with serving() as made:
        yield made


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an unbroken run of the whole chain, in an ordinary process that nobody touched."""
    folder = lay_out(tmp_path_factory.mktemp("whole"))
    command = [sys.executable, "-m", "trimtab", "run", "recipe.yaml", "--dir", "run"]
    subprocess.run(command, cwd=folder, check=True, env={**os.environ, "PYTHONHASHSEED": "1"}, capture_output=True)
    return folder


@pytest.fixture(scope="session")
def short(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an unbroken run of ``short.yaml``."""
    folder = lay_out(tmp_path_factory.mktemp("short"), recipe="short.yaml")
    done = server.run(folder)
    assert done.code == 0, done.err
    return folder


@pytest.fixture(scope="session")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Ground:
    """What cases of the matrix start from, made when first asked for."""
    return Ground(tmp_path_factory.mktemp("ground"))
