from __future__ import annotations

import pytest
import torch
from hypothesis import given, strategies as st
from torch import Tensor

from trimtab.ops.length_control import LengthHold


def lengths(*tokens: int) -> Tensor:
    return torch.tensor(tokens, dtype=torch.float64)


def test_whole_rollouts_make_the_reference_then_half_of_the_mean_is_the_newest() -> None:
    hold = LengthHold().update(lengths(10, 20), min_count=3)
    assert (hold.count, hold.reference, hold.excess) == (2, 15.0, 0.0)
    hold = hold.update(lengths(30, 20), min_count=3)
    assert (hold.count, hold.reference, hold.excess) == (4, 20.0, 0.0)
    hold = hold.update(lengths(24, 24), min_count=3)
    assert (hold.count, hold.reference, hold.recent) == (4, 20.0, 22.0)
    assert hold.excess == pytest.approx(0.1)
    assert hold.update(lengths(14), min_count=3).excess == pytest.approx(-0.1)  # (22 + 14)/2 = 18


def test_what_a_longer_answer_loses() -> None:
    hold = LengthHold(count=4, reference=20.0, recent=22.0)  # 10 % too long
    assert hold.reward_N(lengths(14, 34), gain=6.0).tolist() == pytest.approx([0.3, -0.3])  # 0.6 per 20 tokens
    short = LengthHold(count=4, reference=20.0, recent=18.0)
    assert short.reward_N(lengths(14, 34), gain=6.0).tolist() == pytest.approx([-0.3, 0.3])


def test_at_the_reference_and_before_it_nothing_is_added() -> None:
    assert LengthHold().reward_N(lengths(1, 9), gain=6.0).tolist() == [0.0, 0.0]
    assert LengthHold(4, 20.0, 20.0).reward_N(lengths(1, 9), gain=6.0).tolist() == [0.0, 0.0]


@given(st.lists(st.integers(1, 500), min_size=1, max_size=50), st.floats(5, 50), st.floats(0, 10))
def test_it_moves_no_mean_and_pulls_back(tokens: list[int], recent: float, gain: float) -> None:
    hold = LengthHold(8, 20.0, recent)
    reward_N = hold.reward_N(lengths(*tokens), gain)
    assert float(reward_N.sum()) == pytest.approx(0.0, abs=1e-6)
    covariance = float((reward_N * (lengths(*tokens) - lengths(*tokens).mean())).sum())
    assert covariance <= 1e-9 if recent >= 20 else covariance >= -1e-9


def test_state_round_trips() -> None:
    hold = LengthHold(4, 20.25, 22.125)
    assert LengthHold.from_state(hold.state()) == hold
