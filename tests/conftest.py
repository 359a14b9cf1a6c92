"""What every test starts from: one thread, fixed seeds, no network, a home of its own, and no silent skipping.

``tests/skippable.txt`` lists every test that may skip or be expected to fail; any other that does fails the session,
so a check cannot quietly stop checking.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SKIPPABLE = Path(__file__).with_name("skippable.txt")

# Before torch is imported anywhere, and inherited by the processes that tests start: the number of threads orders
# floating-point sums, and one is also the fastest for tiny models.
for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[name] = "1"
# Processes that tests start import this tree, whether it is installed or not.
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(ROOT / "src"), os.environ.get("PYTHONPATH"))))
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["HF_HUB_OFFLINE"] = "1"

USER_HOME = os.environ.get("TRIMTAB_HOME")
_session_home = tempfile.TemporaryDirectory(prefix="trimtab-home-")


def _environ(name: str, value: str | None) -> None:
    if value is None:
        os.environ.pop(name, None)
    else:
        os.environ[name] = value


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Slow tests share the user's cache of downloads and may fetch; the others get an empty home and may not.

    A hook and not a fixture, so that fixtures of a whole module see it too.
    """
    slow = item.get_closest_marker("slow") is not None
    _environ("TRIMTAB_HOME", USER_HOME if slow else _session_home.name)
    _environ("PIP_NO_INDEX", None if slow else "1")


@pytest.fixture(autouse=True)
def _same_start() -> Iterator[None]:
    """Thread count, seed and default dtype as they were, whatever an earlier test did to them."""
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.set_num_threads(1)
        torch.set_default_dtype(torch.float32)
        torch.manual_seed(0)
    yield


@pytest.fixture(scope="session")
def test_data() -> Path:
    """The folder of real public data (its MANIFEST.md says what each file is); skips where there is none.

    Never committed, so every test of real data has a twin on a fixture written by us.
    """
    folder = Path(os.environ.get("TRIMTAB_TEST_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip("no real data: set TRIMTAB_TEST_DATA to a folder that holds it")
    return folder


def listed() -> set[str]:
    """Names in ``skippable.txt``: ``tests/area/test_x.py::test_name``, ``#`` starts a comment."""
    lines = SKIPPABLE.read_text(encoding="utf-8").splitlines()
    return {line.split("#")[0].strip() for line in lines} - {""}


class NoSilentSkips:
    """Fails a session in which a test outside ``skippable.txt`` skipped, or failed as expected."""

    def __init__(self) -> None:
        self.unlisted: list[str] = []

    def _note(self, nodeid: str) -> None:
        if nodeid.partition("[")[0] not in listed():
            self.unlisted.append(nodeid)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.skipped:
            self._note(report.nodeid)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.skipped:
            self._note(report.nodeid)

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if self.unlisted and session.exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        for nodeid in self.unlisted:
            terminalreporter.write_line(f"FAILED {nodeid} skipped, and tests/skippable.txt does not list it", red=True)


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(NoSilentSkips(), "no-silent-skips")


def pytest_unconfigure() -> None:
    _session_home.cleanup()
