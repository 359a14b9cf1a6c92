from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from trimtab.ops.kl_control import adapt


def test_at_the_target_nothing_changes() -> None:
    assert adapt(0.1, kl=6.0, target=6.0, n=64, horizon=1000) == 0.1


def test_error_is_clipped_at_a_fifth() -> None:
    assert adapt(0.1, kl=600.0, target=6.0, n=100, horizon=100) == pytest.approx(0.12)
    assert adapt(0.1, kl=0.0, target=6.0, n=100, horizon=100) == pytest.approx(0.08)
    assert adapt(0.1, kl=6.6, target=6.0, n=50, horizon=100) == pytest.approx(0.105)


@given(st.floats(0, 100), st.floats(0.1, 50), st.integers(1, 500), st.floats(101, 1e5))
def test_moves_towards_the_target_and_stays_positive(kl: float, target: float, n: int, horizon: float) -> None:
    beta = adapt(0.05, kl, target, n, horizon)
    assert beta > 0
    assert (beta >= 0.05) if kl >= target else (beta <= 0.05)
    assert adapt(0.1, kl, target, n, horizon) == pytest.approx(2 * beta)


@pytest.mark.parametrize(
    ("kl", "target", "n", "horizon", "says"),
    [(float("nan"), 6, 1, 100, "nan"), (1.0, 0, 1, 100, "target"), (1.0, 6, 500, 100, "horizon")],
)
def test_refusals(kl: float, target: float, n: int, horizon: float, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        adapt(0.1, kl, target, n, horizon)
