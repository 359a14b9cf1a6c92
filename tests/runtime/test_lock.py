"""One driver per run directory, by the kernel's word."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from trimtab.errors import RunLocked
from trimtab.runtime.lock import run_lock

HOLD = "import sys, time; from pathlib import Path; from trimtab.runtime.lock import run_lock\n"
HOLD += "with run_lock(Path(sys.argv[1])): print('held', flush=True); time.sleep(60)"


def test_a_second_process_is_refused_by_pid_and_a_killed_one_leaves_no_lock(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None and holder.stdout.readline() == "held\n"
    try:
        with pytest.raises(RunLocked, match=f"process {holder.pid} drives this run") as refused, run_lock(path):
            pytest.fail("two drivers")
        assert refused.value.exit_code == 6
    finally:
        holder.kill()
        holder.wait()
    with run_lock(path):
        pass
    with run_lock(path):
        pass


def test_the_lock_is_released_by_an_error(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), run_lock(tmp_path / ".lock"):
        raise ZeroDivisionError
    with run_lock(tmp_path / ".lock"):
        assert (tmp_path / ".lock").read_text().strip().isdigit()
