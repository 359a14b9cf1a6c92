"""Bins of equal counts: every item in one, equal values together, means that can be checked by hand."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given, strategies as st

from trimtab.evaluation.binned import calibration_error, mean_bins


def test_by_hand() -> None:
    first, second = mean_bins([4.0, 1.0, 3.0, 2.0], [8.0, 1.0, 4.0, 3.0], bins=2)
    assert (first.low, first.high, first.x, first.y, first.n) == (1.0, 2.0, 1.5, (2.0,), 2)
    assert (second.low, second.high, second.x, second.y, second.n) == (3.0, 4.0, 3.5, (6.0,), 2)
    assert first.error == (1.0,)  # deviation √2 over √2
    assert calibration_error([first, second]) == pytest.approx((2 * 0.5 + 2 * 2.5) / 4)


@given(st.lists(st.integers(-4, 4), min_size=1, max_size=60), st.integers(1, 12))
def test_every_item_is_in_one_bin_and_equal_values_are_together(x: list[int], bins: int) -> None:
    found = mean_bins(x, [2.0 * v for v in x], bins=bins)
    assert sum(b.n for b in found) == len(x) and len(found) <= bins
    assert sum(b.n * b.x for b in found) == pytest.approx(sum(x))
    assert all(b.y[0] == pytest.approx(2 * b.x) for b in found)
    assert all(left.high < right.low for left, right in pairwise(found))


def test_what_cannot_be_binned() -> None:
    assert mean_bins([], []) == () and math.isnan(calibration_error([]))
    with pytest.raises(ValueError, match="finite"):
        mean_bins([1.0, math.nan], [1.0, 1.0])
    with pytest.raises(ValueError, match="as many"):
        mean_bins([1.0], [1.0, 2.0])
