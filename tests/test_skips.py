"""The skip policy of conftest.py, tried on sessions of its own."""

from __future__ import annotations

import ast
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parent

SKIPS = "import pytest\n\n\ndef test_passes():\n    pass\n\n\ndef test_skips():\n    pytest.skip('no')\n"
EXPECTED_FAILURE = "import pytest\n\n\n@pytest.mark.xfail\ndef test_skips():\n    assert False\n"
WHOLE_MODULE = "import pytest\n\npytest.importorskip('no_such_package_anywhere')\n\n\ndef test_skips():\n    pass\n"


def session(folder: Path, body: str, skippable: str) -> subprocess.CompletedProcess[str]:
    (folder / "tests").mkdir()
    (folder / "pytest.ini").write_text("[pytest]\nmarkers = slow\n")
    shutil.copy(HERE / "conftest.py", folder / "tests")
    (folder / "tests" / "skippable.txt").write_text(skippable)
    (folder / "tests" / "test_it.py").write_text(body)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


@pytest.mark.parametrize("body", [SKIPS, EXPECTED_FAILURE, WHOLE_MODULE], ids=["skip", "xfail", "module"])
def test_a_skip_that_is_not_listed_fails_the_session(tmp_path: Path, body: str) -> None:
    done = session(tmp_path, body, "# nothing\n")
    assert done.returncode == pytest.ExitCode.TESTS_FAILED, done.stdout
    assert "skipped, and tests/skippable.txt does not list it" in done.stdout


def test_a_listed_skip_passes(tmp_path: Path) -> None:
    done = session(tmp_path, SKIPS, "tests/test_it.py::test_skips  # shown here\n")
    assert done.returncode == pytest.ExitCode.OK, done.stdout


def test_every_listed_name_is_a_test_that_exists() -> None:
    names = [line.split("#")[0].strip() for line in (HERE / "skippable.txt").read_text().splitlines()]
    for name in filter(None, names):
        file, _, test = name.partition("::")
        tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
        assert test in {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}, name
