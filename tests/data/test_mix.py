"""Mixtures: weights hold in every beginning, the order is fixed, no row is lost, and no prompt is on both sides."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from data.test_load import demos, write
from trimtab.data.config import DataConfig, Skip
from trimtab.data.load import LoadedData, load
from trimtab.data.mix import draw
from trimtab.data.split import prompt_key
from trimtab.errors import DataError
from trimtab.train.rows import StageRows
from trimtab.train.stage import StageContext


def mixed(folder: Path, weights: dict[str, float], sizes: dict[str, int], seed: int = 0, **keys: Any) -> LoadedData:
    parts = {}
    for i, (part, size) in enumerate(sizes.items()):
        path = write(folder / f"{part}.jsonl", demos(size, 1000 * i))
        parts[part] = load(part, DataConfig(str(path), heldout=0.2), seed)
    return load("both", DataConfig(mix=weights, **keys), seed, others=parts.__getitem__)


def parts_of(rows: list[Any]) -> list[str]:
    return [row.id.partition("/")[0] for row in rows]


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.dictionaries(st.sampled_from("abc"), st.integers(1, 40), min_size=1),
    weights=st.fixed_dictionaries({p: st.floats(0.1, 10) for p in "abc"}),
)
def test_every_beginning_holds_the_weights_and_no_row_comes_twice(
    sizes: dict[str, int], weights: dict[str, float]
) -> None:
    drawn = draw(sizes, weights)
    assert len(set(drawn)) == len(drawn)
    assert all(turn < sizes[part] for part, turn in drawn)
    total = sum(weights[part] for part in sizes)
    counts: Counter[str] = Counter()
    for place, (part, turn) in enumerate(drawn, 1):
        assert turn == counts[part], "rows of a part come in the part's order"
        counts[part] += 1
        for other in sizes:
            assert abs(counts[other] - place * weights[other] / total) < len(sizes)
    assert any(counts[part] == sizes[part] for part in sizes), "it goes on until a part has no row left"


def test_a_mixture_is_accounted_for_row_by_row(tmp_path: Path) -> None:
    data = mixed(tmp_path, {"a": 3, "b": 1}, {"a": 60, "b": 60})
    rows, account = data.rows("demonstrations"), data.account()
    counts = Counter(parts_of(rows))
    assert abs(counts["a"] - 3 * counts["b"]) <= 3 and counts["a"] >= 40
    assert account["rows_in"] == 120 == sum(account["used"].values()) + account["left_out"]
    assert account["used"]["train of a"] == counts["a"] and account["used"]["train of b"] == counts["b"]
    assert account["left_out_by_reason"].keys() <= {"beyond the weight of a", "beyond the weight of b"}
    assert account["detected"] == "a mixture of a 75.0%, b 25.0%"
    assert all(row["file"].endswith(".jsonl") and row["line"] for row in account["left_out_rows"])
    assert data.places[rows[0].id].line


def test_the_same_seed_gives_the_same_mixture(tmp_path: Path) -> None:
    one, two, other = (mixed(tmp_path, {"a": 2, "b": 1}, {"a": 30, "b": 30}, seed) for seed in (0, 0, 1))
    ids = [[row.id for row in data.rows("demonstrations")] for data in (one, two, other)]
    assert ids[0] == ids[1] != ids[2]


def test_a_larger_limit_repeats_a_short_part_and_counts_it(tmp_path: Path) -> None:
    data = mixed(tmp_path, {"a": 1, "b": 1}, {"a": 60, "b": 10}, limit=40)
    rows, account = data.rows("demonstrations"), data.account()
    assert len(rows) == 40 and Counter(parts_of(rows)) == {"a": 20, "b": 20}
    assert len({row.id for row in rows}) == 40, "a repeated row has an id of its own"
    again = account["notes"]["rows of b taken again in train"]
    assert again == 20 - account["used"]["train of b"] > 0
    assert account["rows_in"] == sum(account["used"].values()) + account["left_out"]


def test_a_prompt_that_one_part_holds_out_is_not_trained_on_from_another(tmp_path: Path) -> None:
    parts = {}
    for part, share in (("a", 0.5), ("b", 0.0)):
        path = write(tmp_path / f"{part}.jsonl", demos(40))
        parts[part] = load(part, DataConfig(str(path), heldout=share), 0)
    data = load("both", DataConfig(mix={"a": 1, "b": 1}), 0, others=parts.__getitem__)
    held = {prompt_key(row) for row in data.rows("demonstrations", "heldout")}
    assert held and not held & {prompt_key(row) for row in data.rows("demonstrations")}
    left = data.account()["left_out_by_reason"]["its prompt is held out by another part"]
    assert left == len(parts["a"].rows("demonstrations", "heldout"))


def test_one_prompt_for_all_stays_on_both_sides_of_its_own_part(tmp_path: Path) -> None:
    rows = [{"prompt": "Write.", "completion": f"Sentence {i}."} for i in range(60)]
    one = load("one", DataConfig(str(write(tmp_path / "one.jsonl", rows)), heldout=0.2), 0)
    two = load("two", DataConfig(str(write(tmp_path / "two.jsonl", demos(60))), heldout=0.2), 0)
    data = load("both", DataConfig(mix={"one": 1, "two": 1}), 0, others={"one": one, "two": two}.__getitem__)
    assert Counter(parts_of(data.rows("demonstrations")))["one"] >= 30


@pytest.mark.parametrize(
    ("config", "why"),
    [
        (DataConfig(mix={"a": 0.0}), "takes no rows"),
        (DataConfig(mix={"a": 1.0}, heldout=0.1), "no key 'heldout'"),
        (DataConfig(mix={"a": 1.0}, source="x.jsonl"), "both source and mix"),
        (DataConfig(), "neither source nor mix"),
        (DataConfig(mix={"a": 1.0, "c": 1.0}), "no kind in common"),
    ],
)
def test_a_mixture_is_refused_with_a_fix(tmp_path: Path, config: DataConfig, why: str) -> None:
    parts = {
        "a": load("a", DataConfig(str(write(tmp_path / "a.jsonl", demos(9)))), 0),
        "c": load("c", DataConfig(str(write(tmp_path / "c.jsonl", [{"prompt": f"q{i}"} for i in range(9)]))), 0),
    }
    with pytest.raises(DataError, match=why) as refused:
        load("both", config, 0, others=parts.__getitem__)
    assert refused.value.fix


def test_rows_that_a_template_refuses_have_recourse_in_a_mixture_too(tmp_path: Path) -> None:
    data = mixed(tmp_path, {"a": 1, "b": 1}, {"a": 20, "b": 20}, on_bad_rows=Skip(0.1))
    refused = data.rows("demonstrations")[1].id

    def make(row: Any) -> int:
        if row.id == refused:
            raise DataError("the template refuses it", fix="leave it out")
        return 1

    rows = StageRows(StageContext("sft", tmp_path, 0, {}, lambda name: data))
    assert (
        len(rows.take("both.demonstrations", "train", make, purpose="training")) == len(data.rows("demonstrations")) - 1
    )
    (left,) = rows.taken[0].left_out
    assert left.where.file.endswith(".jsonl") and left.where.line
