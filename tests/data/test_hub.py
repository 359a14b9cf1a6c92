"""Datasets through ``datasets``: folders that it saved, and the hub's own call with another in its place."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import datasets
import pytest

from trimtab.data.config import DataConfig
from trimtab.data.hub import read_hub
from trimtab.data.load import load
from trimtab.errors import DataError

ROWS = [{"prompt": f"q{i}", "chosen": "a", "rejected": "b"} for i in range(30)]


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A dataset with two splits, as ``save_to_disk`` leaves it."""
    made = {"train": datasets.Dataset.from_list(ROWS[:20]), "test": datasets.Dataset.from_list(ROWS[20:])}
    datasets.DatasetDict(made).save_to_disk(str(tmp_path / "saved"))
    return tmp_path


def test_a_saved_dataset_is_read_split_by_split(saved: Path) -> None:
    data = load("hub", DataConfig("hf:./saved", heldout=0.0), 0, base=saved)
    account = data.account()
    assert account["rows_in"] == 20 and len(data.rows("comparisons")) == 20
    assert account["source"] == ["hf:./saved"] and "format pair" in account["detected"]
    test = load("hub", DataConfig("hf:./saved?split=test", heldout=0.0), 0, base=saved)
    assert {row.prompt.messages[0].content for row in test.rows("comparisons")} == {f"q{i}" for i in range(20, 30)}
    assert str(next(iter(test.places.values()))).startswith("hf:./saved?split=test key '[")


def test_the_hub_is_asked_for_what_the_source_names(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def answer(*args: Any, **keys: Any) -> Any:
        asked.append((args, keys))
        return {"test": datasets.Dataset.from_list(ROWS[:2])}

    monkeypatch.setattr(datasets, "load_dataset", answer)
    _, rows = read_hub("hf:owner/name?config=main&split=test&revision=abc")
    assert asked == [(("owner/name", "main"), {"revision": "abc"})]
    assert [row.values for row in rows] == ROWS[:2] and rows[1].where.key == "[1]"
    with pytest.raises(DataError, match="no split 'train'") as refused:
        read_hub("hf:owner/name")
    assert "test" in refused.value.fix


@pytest.mark.parametrize(
    ("source", "why", "fix"),
    [
        ("hf:", "no dataset is named", "hf:owner/name"),
        ("hf:owner/name?splt=test", "unknown option 'splt'", "split"),
        ("hf:./saved?split=tset", "no split 'tset'", "test"),
        ("hf:./nothing-here", "cannot be read", "network"),
    ],
)
def test_a_source_is_refused_with_a_fix(saved: Path, source: str, why: str, fix: str) -> None:
    with pytest.raises(DataError, match=why) as refused:
        read_hub(source, saved)
    assert fix in refused.value.fix and refused.value.where is not None


def test_without_the_package_it_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(DataError, match="need datasets") as refused:
        read_hub("hf:owner/name")
    assert "trimtab[hub]" in refused.value.fix
