from __future__ import annotations

import json
import random
import statistics

import pytest
import torch
from hypothesis import given, strategies as st

from trimtab.ops.moments import Moments, normalise, scale

values = st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=40)


def test_small_integers() -> None:
    seen = Moments().update([2, 4, 4, 4, 5, 5, 7, 9])
    assert (seen.count, seen.mean, seen.m2) == (8, 5.0, 32.0)
    assert seen.std == pytest.approx((32 / 7) ** 0.5)


@given(values, values)
def test_parts_agree_with_the_whole_and_with_the_standard_library(a: list[float], b: list[float]) -> None:
    whole = Moments().update(a + b)
    assert whole.mean == pytest.approx(statistics.fmean(a + b), abs=1e-9)
    assert whole.std == pytest.approx(statistics.stdev(a + b), abs=1e-9)
    for parts in (Moments().update(a).update(b), Moments().update(a).merge(Moments().update(b))):
        assert parts.count == whole.count
        assert parts.mean == pytest.approx(whole.mean, abs=1e-9)
        assert parts.m2 == pytest.approx(whole.m2, rel=1e-9, abs=1e-9)


@given(values)
def test_order_within_an_update_does_not_matter_to_the_bit(xs: list[float]) -> None:
    shuffled = random.Random(0).sample(xs, len(xs))
    assert Moments().update(shuffled) == Moments().update(xs)


def test_a_large_offset_does_not_eat_the_variance() -> None:
    seen = Moments()
    for start in range(0, 1000, 10):
        seen = seen.update([1e9 + (start + i) % 7 for i in range(10)])
    assert seen.std == pytest.approx(statistics.stdev([i % 7 for i in range(1000)]), rel=1e-6)


@given(values)
def test_state_survives_json_exactly(xs: list[float]) -> None:
    seen = Moments().update(xs)
    assert Moments.from_state(json.loads(json.dumps(seen.state()))) == seen


def test_nothing_changes_nothing() -> None:
    seen = Moments().update([1.0, 2.0])
    assert seen.update([]) == seen.merge(Moments()) == Moments().merge(seen) == seen
    assert Moments().std == Moments().update([3.0]).std == 0.0


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_number_that_is_not_finite_is_refused(bad: float) -> None:
    with pytest.raises(ValueError, match="not finite"):
        Moments().update([1.0, bad])


def test_normalised_values_have_mean_zero_and_deviation_one() -> None:
    x = torch.randn(500, generator=torch.Generator().manual_seed(0)) * 7 + 30
    z = normalise(x, Moments().update(x))
    assert abs(z.mean().item()) < 1e-5 and z.std().item() == pytest.approx(1, abs=1e-5)


def test_scaling_keeps_sign_zero_and_order() -> None:
    x = torch.tensor([-4.0, 0.0, 2.0, 8.0])
    z = scale(x, Moments().update(x))
    assert torch.equal(z.sign(), x.sign())
    assert z.std().item() == pytest.approx(1, abs=1e-6)
    torch.testing.assert_close(z / z[2], x / 2)


def test_equal_values_are_not_blown_up() -> None:
    x = torch.full((100,), 0.1)
    seen = Moments().update(x).update(x * 3 / 3)
    assert normalise(x, seen).abs().max() < 1e-6
    assert torch.equal(scale(x, seen), x)
    noise = Moments().update([0.1, 0.1 + 2e-17, 0.1])  # apart by one bit of float64
    assert noise.std > 0 and noise.unit == 1.0
    assert Moments().update([0.1, 0.1 + 1e-6]).unit < 1e-6
