"""Rows in = rows used + rows left out, each for a reason, at every stage."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from trimtab.data.config import DataConfig, Skip
from trimtab.data.load import load
from trimtab.errors import DataError, Where
from trimtab.records import Demonstration
from trimtab.train.rows import StageRows
from trimtab.train.stage import StageContext


def context(folder: Path, count: int = 20, **keys: Any) -> StageContext:
    rows = [{"prompt": f"q{i}", "completion": f"a{i}"} for i in range(count)]
    (folder / "x.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = load("mine", DataConfig(str(folder / "x.jsonl"), **{"heldout": 0.0, **keys}), 0)
    return StageContext("sft", folder, 0, {}, lambda name: data)


def length(row: Demonstration) -> int:
    return len(row.messages[-1].content)


def refuse(*numbers: int) -> Any:
    """Makes lengths, but the template refuses these answers."""

    def make(row: Demonstration) -> int:
        if row.messages[-1].content in {f"a{n}" for n in numbers}:
            raise DataError("the chat template refuses this conversation", where=Where(row.id), fix="leave it out")
        return length(row)

    return make


def written(folder: Path) -> list[dict[str, Any]]:
    return json.loads((folder / "rows.json").read_text())["rows"]


def test_every_row_is_used(tmp_path: Path) -> None:
    rows = StageRows(context(tmp_path))
    assert [made for _, made in rows.take("mine.demonstrations", "train", length, purpose="training")] == [
        length(row) for row in rows.context.rows("mine.demonstrations")
    ]
    rows.write()
    assert written(tmp_path) == [
        {
            "data": "mine.demonstrations",
            "split": "train",
            "purpose": "training",
            "rows_in": 20,
            "used": 20,
            "left_out": 0,
            "left_out_by_reason": {},
            "left_out_rows": [],
        }
    ]


def test_a_refused_row_ends_the_stage_with_its_file_and_line(tmp_path: Path) -> None:
    rows = StageRows(context(tmp_path))
    with pytest.raises(DataError, match=r"x.jsonl:8: the chat template refuses") as refused:
        rows.take("mine.demonstrations", "train", refuse(7), purpose="training")
    assert "on_bad_rows: {skip: 0.06}" in refused.value.fix
    assert refused.value.where is not None and refused.value.where.line == 8


def test_refused_rows_are_left_out_as_the_recipe_allows_and_listed(tmp_path: Path) -> None:
    said: list[str] = []
    made = StageContext(**{**vars(context(tmp_path, on_bad_rows=Skip(0.1))), "say": said.append})
    rows = StageRows(made)
    assert len(rows.take("mine.demonstrations", "train", refuse(7, 9), purpose="training")) == 18
    rows.write()
    [one] = written(tmp_path)
    assert (one["rows_in"], one["used"], one["left_out"]) == (20, 18, 2)
    assert one["left_out_by_reason"] == {"the chat template refuses this conversation": 2}
    assert sorted(row["line"] for row in one["left_out_rows"]) == [8, 10]
    assert said == ["sft: 2 of 20 rows of mine.demonstrations left out (rows.json)"]
    with pytest.raises(DataError, match="allowed are 10.00%"):
        rows.take("mine.demonstrations", "train", refuse(1, 2, 3), purpose="training")


def test_the_share_is_of_the_rows_that_were_looked_at(tmp_path: Path) -> None:
    rows = StageRows(context(tmp_path, on_bad_rows=Skip(0.1)))
    first = rows.context.rows("mine.demonstrations")[0].messages[-1].content
    with pytest.raises(DataError, match="1 of 4 rows"):
        rows.take("mine.demonstrations", "train", refuse(int(first[1:])), purpose="training", limit=4)


def test_limits_useless_rows_and_rows_not_reached_are_counted(tmp_path: Path) -> None:
    rows = StageRows(context(tmp_path))
    odd = lambda row: None if row.messages[-1].content in ("a1", "a2") else 1  # noqa: E731
    kept = rows.take("mine.demonstrations", "train", odd, purpose="training", nothing="every answer is tied")
    rows.take("mine.demonstrations", "train", length, purpose="samples", limit=3)
    rows.taken[1].leave_unread("not reached in 2 versions", 2)
    rows.write()
    first, second = written(tmp_path)
    assert len(kept) == 18 and first["left_out_by_reason"] == {"every answer is tied": 2}
    assert second["left_out_by_reason"] == {"beyond the stage's limit": 17, "not reached in 2 versions": 2}
    assert second["used"] == 1


def test_all_rows_bad_is_an_error_whatever_is_allowed(tmp_path: Path) -> None:
    rows = StageRows(context(tmp_path, 3, on_bad_rows=Skip(1.0)))
    with pytest.raises(DataError, match="none of 3 rows of mine.demonstrations can be used"):
        rows.take("mine.demonstrations", "train", refuse(0, 1, 2), purpose="training")


def test_a_lost_row_is_our_bug(tmp_path: Path) -> None:
    rows = StageRows(context(tmp_path))
    rows.take("mine.demonstrations", "train", length, purpose="training")
    rows.taken[0].used -= 1
    with pytest.raises(AssertionError, match="20 rows in, but 19 used"):
        rows.write()
