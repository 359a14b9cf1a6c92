"""The flat batch: selecting, splitting and moving sequences keeps every token's neighbours and every pair."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings, strategies as st

from trimtab.batch import FlatBatch, Sequence, flatten

COLUMNS = ("advantage_T", "trunk_TD", "score_N", "margin_M")


def test_the_docstring_example() -> None:
    batch = flatten([Sequence(ids=[5, 6, 7], act=[False, True, True])])
    assert batch.ids_T.tolist() == [5, 6, 7]
    assert batch.position_T.tolist() == [0, 1, 2]
    assert batch.prev_T.tolist() == [-1, 0, 1]
    assert batch.act_T.tolist() == [False, True, True]
    assert batch.sequence_T.tolist() == [0, 0, 0]
    assert batch.start_N1.tolist() == batch.key_start_N1.tolist() == [0, 3]
    assert (batch.tokens, batch.sequences) == (3, 1)


def test_two_texts_restart_their_positions() -> None:
    batch = flatten([Sequence([5, 6], [False, True], id="a"), Sequence([7, 8, 9], [False, False, True], id="b")])
    assert batch.position_T.tolist() == [0, 1, 0, 1, 2]
    assert batch.prev_T.tolist() == [-1, 0, -1, 2, 3]
    assert batch.lengths_N.tolist() == [2, 3]
    assert batch.last_T().tolist() == [1, 4]
    assert batch.unit_N.tolist() == [0, 1]
    assert batch.ids_N == ("a", "b")


def test_last_action_may_lie_before_the_last_token() -> None:
    batch = flatten(
        [
            Sequence([1, 2, 3, 4], [False, True, True, False]),
            Sequence([1, 2], [False, False]),
            Sequence([1, 2, 3], [False, True, True]),
        ]
    )
    assert batch.last_action_N().tolist() == [2, -1, 8]


def test_what_cannot_be_a_sequence_is_refused() -> None:
    with pytest.raises(ValueError, match="2 ids but 1 act"):
        Sequence([1, 2], [False])
    with pytest.raises(ValueError, match="no tokens"):
        Sequence([], [])
    with pytest.raises(ValueError, match="nothing precedes it"):
        Sequence([1, 2], [True, True])
    with pytest.raises(ValueError, match="at least one sequence"):
        flatten([])


def test_what_cannot_be_a_batch_is_refused() -> None:
    one, two = Sequence([1], [False], id="a"), Sequence([2], [False], id="b")
    with pytest.raises(ValueError, match="different units"):
        flatten([one, two], pairs=[(0, 1)])
    with pytest.raises(ValueError, match="other columns"):
        flatten([Sequence([1], [False], columns={"score_N": 1.0}), Sequence([1], [False], columns={"prize_N": 1.0})])
    with pytest.raises(ValueError, match="other columns"):
        flatten([Sequence([1], [False], columns={"score_N": 1.0}), one])
    with pytest.raises(ValueError, match="axes"):
        flatten([one, two]).with_columns(score=torch.zeros(2))
    with pytest.raises(ValueError, match="3 rows, its axis has 2"):
        flatten([one, two]).with_columns(score_N=torch.zeros(3))


def test_columns_come_from_rows_and_can_be_replaced() -> None:
    rows = [
        Sequence([1, 2], [False, True], columns={"score_N": 0.5}, token_columns={"old_logp_T": [0.0, -1.0]}),
        Sequence([3], [False], columns={"score_N": 2.0}, token_columns={"old_logp_T": torch.zeros(1)}),
    ]
    batch = flatten(rows)
    assert batch["score_N"].tolist() == [0.5, 2.0]
    assert batch["old_logp_T"].tolist() == [0.0, -1.0, 0.0]
    changed = batch.with_columns(score_N=torch.ones(2))
    assert changed["score_N"].tolist() == [1.0, 1.0]
    assert batch["score_N"].tolist() == [0.5, 2.0]
    assert "old_logp_T" in changed and "advantage_T" not in changed


@st.composite
def batches(draw: st.DrawFn) -> FlatBatch:
    """Units of one to four texts of one to six tokens, with pairs inside units and a column on every axis.

    Every token id is unique, so a token can be recognised wherever it went.
    """
    sizes = draw(st.lists(st.integers(1, 4), min_size=1, max_size=5))
    rows: list[Sequence] = []
    pairs: list[tuple[int, int]] = []
    token = 0
    for unit, size in enumerate(sizes):
        first = len(rows)
        for _ in range(size):
            n = draw(st.integers(1, 6))
            acts = [False, *draw(st.lists(st.booleans(), min_size=n - 1, max_size=n - 1))]
            rows.append(Sequence(range(token, token + n), acts, id=f"r{len(rows)}", unit=10 - unit))
            token += n
        pairs += draw(
            st.lists(st.tuples(st.integers(first, len(rows) - 1), st.integers(first, len(rows) - 1)), max_size=3)
        )
    batch = flatten(rows, pairs)
    return batch.with_columns(
        advantage_T=batch.ids_T.double() / 7,
        trunk_TD=torch.stack([batch.ids_T, -batch.ids_T], -1),
        score_N=torch.arange(batch.sequences) * 10,
        margin_M=batch.pairs_M2[:, 0] * 100 + batch.pairs_M2[:, 1],
    )


def _texts(batch: FlatBatch) -> dict[str, list[int]]:
    starts = batch.start_N1.tolist()
    return {name: batch.ids_T[a:b].tolist() for name, a, b in zip(batch.ids_N, starts[:-1], starts[1:], strict=True)}


def _consistent(batch: FlatBatch) -> None:
    """What must be true of any batch made by ``batches`` or a part of it."""
    flat = torch.arange(batch.tokens)
    assert torch.equal(batch.prev_T, torch.where(batch.position_T > 0, flat - 1, -1))
    assert torch.equal(batch.sequence_T, torch.repeat_interleave(torch.arange(batch.sequences), batch.lengths_N))
    assert torch.equal(batch.start_N1, batch.key_start_N1)
    assert torch.equal(batch["advantage_T"], batch.ids_T.double() / 7)
    assert torch.equal(batch["trunk_TD"], torch.stack([batch.ids_T, -batch.ids_T], -1))
    number = torch.tensor([int(name[1:]) for name in batch.ids_N])
    assert torch.equal(batch["score_N"], number * 10)
    members = number[batch.pairs_M2]
    assert torch.equal(batch["margin_M"], members[:, 0] * 100 + members[:, 1])
    assert batch["margin_M"].shape[0] == batch.pairs_M2.shape[0]


@settings(max_examples=60, deadline=None)
@given(batches(), st.data())
def test_select_keeps_texts_columns_and_pairs(batch: FlatBatch, data: st.DataObject) -> None:
    order = data.draw(st.permutations(range(batch.sequences)))
    rows = order[: data.draw(st.integers(1, batch.sequences))]
    part = batch.select(rows)
    _consistent(part)
    assert part.ids_N == tuple(batch.ids_N[r] for r in rows)
    assert _texts(part) == {batch.ids_N[r]: _texts(batch)[batch.ids_N[r]] for r in rows}
    expected = [pair for pair in batch.pairs_M2.tolist() if set(pair) <= set(rows)]
    assert [[rows[i] for i in pair] for pair in part.pairs_M2.tolist()] == expected
    assert part.act_T.sum() == sum(batch.act_T[int(batch.start_N1[r]) : int(batch.start_N1[r + 1])].sum() for r in rows)


@settings(max_examples=60, deadline=None)
@given(batches(), st.integers(1, 40))
def test_micro_batches_partition_and_never_split_a_unit(batch: FlatBatch, budget: int) -> None:
    parts = list(batch.micro_batches(budget))
    for part in parts:
        _consistent(part)
        assert part.tokens <= budget or part.unit_N.unique().numel() == 1
    assert [name for part in parts for name in part.ids_N] == list(batch.ids_N)  # units are contiguous here
    seen = [set(part.unit_N.tolist()) for part in parts]
    assert sum(len(units) for units in seen) == len(set.union(*seen)), "a unit lies in two micro-batches"
    assert sum(part.pairs_M2.shape[0] for part in parts) == batch.pairs_M2.shape[0]
    assert sum(int(part.act_T.sum()) for part in parts) == int(batch.act_T.sum())


def test_micro_batches_keep_scattered_units_together() -> None:
    rows = [Sequence([i, i], [False, True], id=f"r{i}", unit=i % 2) for i in range(4)]
    first, second = flatten(rows, pairs=[(0, 2), (3, 1)]).micro_batches(4)
    assert (first.ids_N, first.pairs_M2.tolist()) == (("r0", "r2"), [[0, 1]])
    assert (second.ids_N, second.pairs_M2.tolist()) == (("r1", "r3"), [[1, 0]])


def test_micro_batches_fill_the_budget() -> None:
    rows = [Sequence([0] * n, [False] * n) for n in (3, 3, 3, 2, 5)]
    assert [part.lengths_N.tolist() for part in flatten(rows).micro_batches(6)] == [[3, 3], [3, 2], [5]]


def test_rows_without_a_unit_never_fall_into_another() -> None:
    rows = [
        Sequence([1], [False], unit=4),
        Sequence([1], [False]),
        Sequence([1], [False], unit=4),
        Sequence([1], [False]),
    ]
    assert flatten(rows).units() == [[0, 2], [1], [3]]


def test_moving_a_batch_moves_its_columns() -> None:
    batch = flatten([Sequence([1, 2], [False, True], columns={"score_N": 1.0})]).to("meta")
    assert {t.device.type for t in (batch.ids_T, batch.pairs_M2, batch["score_N"])} == {"meta"}
