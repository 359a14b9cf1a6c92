"""The wheel holds what an installed Trimtab needs, and works from there without the checkout."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built by the backend itself, so neither pip nor the network is needed."""
    out = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(out)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    [built] = out.glob("*.whl")
    return built


def test_the_wheel_is_the_package_and_nothing_else(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    package = {name for name in names if ".dist-info/" not in name}
    on_disk = {
        str(path.relative_to(ROOT / "src"))
        for path in (ROOT / "src" / "trimtab").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert package == on_disk
    assert "trimtab/py.typed" in package
    assert "trimtab/pipeline/recipes/quickstart.yaml" in package
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)


def test_the_installed_command_finds_its_recipes(wheel: Path, tmp_path: Path) -> None:
    """From an empty folder, with the wheel's files in front of everything else."""
    site, empty = tmp_path / "site", tmp_path / "empty"
    zipfile.ZipFile(wheel).extractall(site)
    empty.mkdir()
    [points] = site.glob("*.dist-info/entry_points.txt")
    assert "trimtab = trimtab.apps.cli:main" in points.read_text()
    program = "import sys, trimtab; print(trimtab.__file__); from trimtab.apps.cli import main; sys.exit(main())"
    done = subprocess.run(
        [sys.executable, "-c", program, "check", "quickstart"],
        cwd=empty,
        env={**os.environ, "PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(str(site)), "it ran another copy"
    assert list(empty.iterdir()) == [], "checking a recipe left files behind"
