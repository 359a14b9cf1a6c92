"""The running regression is that of all pairs at once, however they came."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, strategies as st

from trimtab.ops.regression import CoMoments

NUMBERS = st.floats(-100, 100).map(lambda x: round(x, 3))
PAIRS = st.lists(st.tuples(NUMBERS, NUMBERS), min_size=3, max_size=30)


def test_a_line_is_found_exactly() -> None:
    found = CoMoments().update((x, 3.0 - 2.0 * x) for x in (1.0, 4.0, 6.0))
    assert found.slope == pytest.approx(-2.0) and found.correlation == pytest.approx(-1.0)
    assert (found.mean_x, found.mean_y, found.count) == (pytest.approx(11 / 3), pytest.approx(3 - 22 / 3), 3)


@given(PAIRS, st.integers(0, 30))
def test_it_is_numpys_whatever_the_chunks(pairs: list[tuple[float, float]], cut: int) -> None:
    found = CoMoments().update(pairs[:cut]).update(pairs[cut:])
    x, y = np.array(pairs).T
    if np.ptp(x) < 1e-2:
        return
    assert found.slope == pytest.approx(np.polyfit(x, y, 1)[0], rel=1e-6, abs=1e-6)


def test_nothing_varies_and_nothing_is_claimed() -> None:
    assert CoMoments().slope == CoMoments().correlation == 0.0
    flat = CoMoments().update([(2.0, 1.0), (2.0, 5.0)])
    assert flat.slope == 0.0 and flat.correlation == 0.0


def test_state_survives_json_to_the_bit() -> None:
    found = CoMoments().update([(0.1, 0.7), (1 / 3, 2.5), (9.0, -1e-9)])
    assert CoMoments.from_state(json.loads(json.dumps(found.state()))) == found


def test_a_number_that_is_not_finite_is_refused() -> None:
    with pytest.raises(ValueError, match="spoil"):
        CoMoments().update([(1.0, float("nan"))])
