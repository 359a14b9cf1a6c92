"""A stage that ends by an error leaves a word of it in ``events.jsonl`` and a report; the error comes through."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from pipeline import counting
from pipeline.made_run import Page
from trimtab.errors import Diverged
from trimtab.pipeline import environment as environment_module
from trimtab.pipeline.recipe import load
from trimtab.pipeline.report_files import read_run
from trimtab.pipeline.run import run
from trimtab.pipeline.stages import STAGES


def broken(*_: object) -> None:
    raise Diverged("5 updates in a row were not finite", fix="lower the learning rate")


def test_a_failure_is_on_record_and_forgotten_once_it_is_mended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    monkeypatch.setattr(environment_module, "environment", lambda: {"torch": "2", "threads": 1})
    for name, kind in counting.kinds("pipeline.counting").items():
        monkeypatch.setitem(STAGES, name, kind)
    whole = counting.verdict
    monkeypatch.setattr(counting, "verdict", broken)
    recipe = load(counting.lay_out(tmp_path))
    with pytest.raises(Diverged, match="5 updates"):
        run(recipe, tmp_path / "run", say=lambda line: None)
    last = json.loads((tmp_path / "run" / "events.jsonl").read_text().splitlines()[-1])
    assert (last["event"], last["stage"], last["error"]) == ("failed", "verdict", "Diverged")
    assert last["fix"] == "lower the learning rate" and last["time"] > 0
    page = Page((tmp_path / "run" / "report.html").read_text(encoding="utf-8"))
    assert "Failed. Diverged: 5 updates in a row were not finite" in page.text
    assert {s.name: s.status for s in read_run(tmp_path / "run").stages}["verdict"] == "failed"

    monkeypatch.setattr(counting, "verdict", whole)
    run(recipe, tmp_path / "run", say=lambda line: None)
    assert {s.status for s in read_run(tmp_path / "run").stages} == {"finished"}
    page = Page((tmp_path / "run" / "report.html").read_text(encoding="utf-8"))
    assert "Failed." not in page.text and "verdict failed 20" in page.text, "the history keeps it"
