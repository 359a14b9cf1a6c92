"""The driver: what is run, what is not run again, what is refused, and that a killed run ends as an unbroken one."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipeline import counting
from trimtab.errors import CheckpointError, DataError, Interrupted, RecipeError, RunLocked
from trimtab.pipeline import environment as environment_module, run as run_module
from trimtab.pipeline.manifest import changes, read_manifest
from trimtab.pipeline.recipe import load
from trimtab.pipeline.run import run
from trimtab.pipeline.stages import STAGES
from trimtab.runtime.lock import run_lock
from trimtab.train.stage import StageContext

PLACE = {"trimtab": "0", "torch": "2", "threads": 1, "cpu": "this one"}


class Case:
    """A folder with a recipe; ``go`` runs it and keeps what was said."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.recipe, self.dir = folder, counting.lay_out(folder), folder / "run"
        self.said: list[str] = []

    def go(self, *overrides: str, **options: Any) -> list[str]:
        self.said = []
        run(load(self.recipe, overrides), self.dir, say=self.said.append, **options)
        return self.said

    def refused(self, *overrides: str, **options: Any) -> str:
        with pytest.raises(CheckpointError) as error:
            self.go(*overrides, **options)
        assert error.value.fix
        return str(error.value)

    def ran(self) -> list[str]:
        return [line.partition(":")[0] for line in self.said if line.endswith((": started", ": continued"))]

    def bytes(self) -> dict[str, bytes]:
        """Everything a run leaves that holds no clock times."""
        files = [path for path in self.dir.rglob("*") if path.is_file() and path.name not in ("events.jsonl", ".lock")]
        return {path.relative_to(self.dir).as_posix(): path.read_bytes() for path in files}


@pytest.fixture
def case(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Case:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)  # no power cuts here, and disks are slow
    for name, kind in counting.kinds("pipeline.counting").items():
        monkeypatch.setitem(STAGES, name, kind)
    monkeypatch.setattr(run_module, "_REPORT", "pipeline.counting:report")
    monkeypatch.setattr(environment_module, "environment", lambda: dict(PLACE))
    return Case(tmp_path)


def test_a_run_leaves_everything_it_did(case: Case) -> None:
    said = case.go()
    assert case.ran() == ["one", "two", "other", "verdict"]
    assert "one: counted to 3" in said
    assert said[-2:] == ["it is better", f"report: {case.dir / 'report.html'}"]
    assert (case.dir / "report.html").read_text() == "one other two verdict"
    assert json.loads((case.dir / "data" / "d.json").read_text())["rows_in"] == 3
    manifest = json.loads((case.dir / "stages/two/manifest.json").read_text())
    one = json.loads((case.dir / "stages/one/manifest.json").read_text())
    assert (manifest["status"], manifest["kind"], manifest["seed"]) == ("finished", "count", 0)
    assert manifest["config"]["to"] == 3 and manifest["metrics"] == {"counted": 3, "loss": "nan"}
    assert manifest["inputs"]["model"]["stage"] == "one" and manifest["inputs"]["data"]["rows"] == "d.demonstrations"
    assert set(manifest["outputs"]) == {"model/weights"} and one["outputs"] != manifest["outputs"]
    assert manifest["environment"] == PLACE and manifest["inexact"] is False
    assert load(case.dir / "recipe.yaml").stages == load(case.recipe).stages
    events = [json.loads(line) for line in (case.dir / "events.jsonl").read_text().splitlines()]
    assert [e["stage"] for e in events if e.get("status") == "finished"] == ["one", "two", "other", "verdict"]


def test_a_finished_run_is_not_run_again_and_says_its_verdict(case: Case) -> None:
    case.go()
    before = case.bytes()
    said = case.go()
    assert case.ran() == [] and said[-2:] == ["it is better", f"report: {case.dir / 'report.html'}"]
    assert case.bytes() == before


def test_only_what_is_missing_is_run(case: Case) -> None:
    case.go()
    before = case.bytes()
    shutil.rmtree(case.dir / "stages" / "two")
    case.go()
    assert case.ran() == ["two"] and case.bytes() == before


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("stages.two.to=4", "stage two ended with other settings or inputs: stages.two.to: 3 -> 4"),
        ("seed=1", "stage one ended with other settings or inputs: seed: 0 -> 1"),
        ("stages.two.model=base", 'stages.two.model: "one" -> "base"'),
        ("models.base.dtype=float32", 'stages.one.inputs.model.dtype: "bfloat16" -> "float32"'),
    ],
)
def test_changed_keys_are_named_and_refused(case: Case, override: str, says: str) -> None:
    case.go()
    before = case.bytes()
    message = case.refused(override)
    assert says in message and "--from" in message and case.bytes() == before


def test_when_to_save_may_change(case: Case) -> None:
    case.go()
    case.go("stages.one.train.checkpoint={every_s: 1, keep: 5}")
    assert case.ran() == []
    assert "stages.one.train.token_budget" in case.refused("stages.one.train.token_budget=9")


def test_changed_rows_are_refused_though_their_number_is_the_same(case: Case) -> None:
    case.go()
    rows = case.folder / "rows.jsonl"
    before = case.bytes()
    rows.write_text(counting.ROWS.replace("Drei", "Vier"))
    assert "stages.one.inputs.data.sha256: " in case.refused() and case.bytes() == before
    rows.write_text(counting.ROWS + counting.ROWS.replace("?", "!"))
    assert "stages.one.inputs.data.sha256: " in case.refused() and case.bytes() == before


def test_data_that_the_last_stage_misses_is_missed_before_the_first_runs(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(STAGES, "evaluate", replace(STAGES["evaluate"], data={"prompts": "comparisons"}))
    with pytest.raises(DataError, match="'d' has no comparisons"):
        case.go("stages.verdict.prompts=d.comparisons")
    assert not (case.dir / "stages").exists()


def test_a_changed_base_model_is_refused(case: Case) -> None:
    case.go()
    (case.folder / "base" / "weights").write_text("other")
    assert "stages.one.inputs.model.sha256: " in case.refused()


def test_a_damaged_output_is_refused_by_its_name(case: Case) -> None:
    case.go()
    shutil.rmtree(case.dir / "stages" / "two")
    (case.dir / "stages" / "one" / "model" / "weights").write_text("bitrot")
    message = case.refused()
    assert "model/weights is not what stage one saved" in message and "--from one" in message


def test_from_forgets_a_stage_and_its_readers(case: Case) -> None:
    case.go()
    before = case.bytes()
    case.go("stages.two.to=4", again="two")
    assert case.ran() == ["two", "verdict"]
    case.go(again="two")
    assert case.ran() == ["two", "verdict"] and case.bytes() == before
    case.go(again="one")
    assert case.ran() == ["one", "two", "verdict"] and case.bytes() == before
    with pytest.raises(RecipeError, match="there is no stage 'tow' to run again"):
        case.go(again="tow")
    assert "stages.other.to: 3 -> 9" in case.refused("stages.other.to=9", again="two")
    assert case.bytes() == before  # what is refused has deleted nothing


def test_a_damaged_manifest_is_refused(case: Case) -> None:
    case.go()
    path = case.dir / "stages" / "one" / "manifest.json"
    path.write_text(path.read_text()[:-20])
    assert "this manifest is damaged (not JSON" in case.refused()
    path.write_text("{}")
    assert "this manifest is damaged (needs the key 'stage')" in case.refused()


def test_another_machine_is_refused_unless_asked(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    case.go()
    monkeypatch.setattr(environment_module, "environment", lambda: {**PLACE, "torch": "3", "cpu": "another"})
    case.go()  # nothing is left to compute, so nothing can round differently
    shutil.rmtree(case.dir / "stages" / "two")
    message = case.refused()
    assert 'torch: "2" -> "3"; cpu: "this one" -> "another"' in message and "--inexact" in message
    case.go(inexact=True)
    manifest = read_manifest(case.dir / "stages" / "two")
    assert manifest is not None and manifest.inexact and manifest.environment["torch"] == "3"
    one = read_manifest(case.dir / "stages" / "one")
    assert one is not None and not one.inexact


def test_the_thread_count_of_the_first_launch_is_set_again(tmp_path: Path) -> None:
    import torch

    path = tmp_path / "manifest.json"
    torch.set_num_threads(1)
    environment_module.honour(path, inexact=False)
    torch.set_num_threads(2)
    found, different = environment_module.honour(path, inexact=False)
    assert (found["threads"], different, torch.get_num_threads()) == (1, [], 1)
    path.write_text(path.read_text().replace('"threads": 1', '"threads": 4096'))
    with pytest.raises(CheckpointError, match="threads: 4096 -> 1"):
        environment_module.honour(path, inexact=False)
    assert environment_module.honour(path, inexact=True)[1] == ["threads: 4096 -> 1"]


def test_a_report_that_fails_does_not_lose_the_run(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_module, "_REPORT", "pipeline.counting:broken_report")
    said = case.go()
    assert "the report could not be written (ZeroDivisionError: no bars)" in said
    assert case.ran() == ["one", "two", "other", "verdict"] and "it is better" in said


def test_a_second_driver_is_refused(case: Case) -> None:
    case.dir.mkdir()
    with run_lock(case.dir / ".lock"), pytest.raises(RunLocked, match=f"process {os.getpid()} drives"):
        case.go()
    case.go()


def test_leftovers_of_a_kill_are_tidied_before_a_stage_continues(case: Case) -> None:
    case.go()
    before = case.bytes()
    shutil.rmtree(case.dir / "stages" / "other" / "model")
    manifest = case.dir / "stages" / "other" / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"finished"', '"started"'))
    half = case.dir / "stages" / "other" / ".model.tmp-77"
    half.mkdir()
    (half / "weights").write_text("half")
    case.go()
    assert case.said[3] == "other: continued" and case.bytes() == before


def test_stopped_at_every_boundary_it_ends_as_an_unbroken_run(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    case.go()
    whole = case.bytes()
    shutil.rmtree(case.dir)
    original = counting.run

    def nudged(config: counting.CountConfig, context: StageContext) -> Any:
        os.kill(os.getpid(), signal.SIGTERM)
        return original(config, context)

    monkeypatch.setattr(counting, "run", nudged)
    stops = 0
    while True:
        try:
            case.go()
            break
        except Interrupted as stop:
            stops += 1
            assert "run the same command again" in stop.fix and stop.exit_code == 75
    assert stops == 9 and case.bytes() == whole  # twice within a stage, once after it, three times


def test_changes_are_written_for_people() -> None:
    old = {"a": {"b": 1, "gone": 2}, "list": [1], "h": "0" * 64}
    new = {"a": {"b": 1.5}, "list": [1, 2], "h": "1" * 64, "new": None}
    assert changes(old, new) == [
        "a.b: 1 -> 1.5",
        "list: [1] -> [1, 2]",
        'h: "000000000000…" -> "111111111111…"',
        "a.gone: 2 -> null",
    ]
    assert changes({"a": {}}, {"a": {"x": 1}}) == ["a.x: null -> 1", "a: {} -> null"]


# ---- real processes


def start(folder: Path, **pauses: float) -> subprocess.Popen[str]:
    """``trimtab run`` in a folder, in a process of its own; ``pauses`` slow stages down."""
    command = [sys.executable, str(Path(counting.__file__)), str(folder), "run", "recipe.yaml", "--dir", "run"]
    return subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "COUNTING_PAUSES": json.dumps(pauses)},
    )


def end(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Exit code and what it complained about."""
    _, errors = process.communicate(timeout=120)
    return process.returncode, errors


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} did not appear"
        time.sleep(0.01)


@pytest.mark.slow
def test_signals_and_kills_of_a_real_process(tmp_path: Path) -> None:
    """SIGTERM saves (75), two Ctrl-C stop at once (130), SIGKILL saves nothing; the files end the same."""
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    for folder in (whole, broken):
        folder.mkdir()
        counting.lay_out(folder)
    assert end(start(whole)) == (0, "")
    stage = broken / "run" / "stages"

    process = start(broken, one=5.0)
    wait_for(stage / "one" / "manifest.json")
    code, errors = end(start(broken))
    assert code == 6 and f"process {process.pid} drives" in errors
    process.send_signal(signal.SIGTERM)
    code, errors = end(process)
    assert code == 75 and "SIGTERM: saving at the next boundary" in errors and "run the same command again" in errors

    process = start(broken, two=1.0)
    wait_for(stage / "two" / "state.json")
    process.kill()
    assert end(process)[0] == -signal.SIGKILL

    process = start(broken, other=60.0)
    wait_for(stage / "other" / "manifest.json")
    process.send_signal(signal.SIGINT)
    assert process.stderr is not None
    while "SIGINT: saving at the next boundary" not in process.stderr.readline():
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    code, errors = end(process)
    assert code == 130 and "stopped at once" in errors

    assert end(start(broken)) == (0, "")
    kept = ("counts.jsonl", "weights", "manifest.json", "recipe.yaml")
    files = {path.relative_to(whole): path for path in (whole / "run").rglob("*") if path.name in kept}
    assert len(files) == 3 * 3 + 3
    for name, path in files.items():
        assert (broken / name).read_bytes() == path.read_bytes(), name
