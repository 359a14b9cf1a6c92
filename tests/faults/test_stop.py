"""SIGTERM and Ctrl-C: saved at the next boundary, exit code 75, and the same command ends with the same bytes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from e2e.tiny import lay_out
from faults.lab import STOPPED, Server, assert_same, resumed
from faults.plant import Fault

pytestmark = pytest.mark.slow

UPDATE = "trimtab.train.fit:_update"
STOPS: dict[str, tuple[Fault, str]] = {
    "sft: while the model loads": (
        Fault("trimtab.algorithms.sft.stage:load_lm", do="SIGTERM"),
        "SIGTERM: saved version 0",
    ),
    "sft: in an update": (Fault(UPDATE, 3, stage="sft", do="SIGINT"), "SIGINT: saved version 3"),
    "sft: in the last update": (Fault(UPDATE, 9, stage="sft", do="SIGTERM"), "SIGTERM: stopped before stage reward"),
    "reward: in an update": (Fault(UPDATE, 5, "after", stage="reward", do="SIGINT"), "SIGINT: saved version 5"),
    "ppo: sampling": (
        Fault("trimtab.sampling.local:LocalSampler._draw", 2, stage="policy", do="SIGTERM"),
        "SIGTERM: saved version 1",
    ),
    "ppo: saving": (
        Fault("trimtab.train.checkpoint:save", 1, stage="policy", do="SIGINT"),
        "SIGINT: saved version 3",
    ),
    "evaluate: one side's answers": (
        Fault("trimtab.sampling.local:LocalSampler._draw", 2, stage="verdict", do="SIGTERM"),
        "SIGTERM: the against's answers are saved",
    ),
}


def test_stopped_in_every_stage_it_ends_as_an_unbroken_run(server: Server, whole: Path, tmp_path: Path) -> None:
    lay_out(tmp_path)
    for name, (fault, says) in STOPS.items():
        done = server.run(tmp_path, faults=[fault])
        assert done.code == STOPPED, f"{name}: exit code {done.code}\n{done.out}\n{done.err}"
        assert says in done.err and "run the same command again to continue" in done.err, name
        assert "Traceback" not in done.err
    done = server.run(tmp_path)
    assert done.code == 0, done.err
    assert_same(whole / "run", tmp_path / "run")
    assert resumed(tmp_path / "run", "sft") == [0, 3], "what was computed before a signal is not computed again"
    assert resumed(tmp_path / "run", "reward") == [5]
    assert resumed(tmp_path / "run", "policy") == [1, 3]


def test_a_second_ctrl_c_stops_at_once_and_a_second_sigterm_does_not(
    server: Server, short: Path, tmp_path: Path
) -> None:
    lay_out(tmp_path, recipe="short.yaml")
    step = "trimtab.runtime.engine:Engine.step"
    again = [Fault(UPDATE, 2, do="SIGTERM"), Fault(step, 2, do="SIGTERM")]
    done = server.run(tmp_path, faults=again)
    assert done.code == STOPPED and "saved version 2" in done.err
    again = [Fault(UPDATE, 2, do="SIGINT"), Fault(step, 2, do="SIGINT")]
    done = server.run(tmp_path, faults=again)
    assert done.code == 130 and "stopped at once" in done.err
    assert server.run(tmp_path).code == 0
    assert resumed(tmp_path / "run", "sft") == [2, 3]
    assert_same(short / "run", tmp_path / "run")


def test_ctrl_c_on_a_terminal_reaches_a_real_process(short: Path, tmp_path: Path) -> None:
    """An ordinary process, and the signal sent to its whole group, as a terminal does."""
    lay_out(tmp_path, recipe="short.yaml")
    command = [sys.executable, "-m", "trimtab", "run", "recipe.yaml", "--dir", "run"]
    process = subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    deadline = time.monotonic() + 300
    while not (tmp_path / "run" / "stages" / "sft" / "checkpoints").exists():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.002)
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=300)
    assert process.returncode == STOPPED and "SIGINT: saving at the next boundary" in err
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    assert_same(short / "run", tmp_path / "run")
