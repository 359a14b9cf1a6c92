"""The controller that keeps the KL of a policy near a target by moving β (arXiv 1909.08593, §2.2)."""

from __future__ import annotations

import math


def adapt(beta: float, kl: float, target: float, n: int, horizon: float) -> float:
    """β(1 + clip(KL/target - 1, ±0.2)·n/horizon), once per rollout.

    Args:
        beta: the coefficient so far.
        kl: mean KL of the rollout, in nats per answer.
        target: the KL to hold, in the same unit, > 0.
        n: sequences of the rollout.
        horizon: sequences over which a full error of 0.2 multiplies β by about e^0.2; above n/5.

    Raises:
        ValueError: ``kl`` is not finite, ``target`` is not positive, or ``horizon`` is so short that β could reach 0.
    """
    if not math.isfinite(kl):
        raise ValueError(f"the KL is {kl}")
    if target <= 0:
        raise ValueError(f"the KL target must be positive, not {target}")
    if 5 * horizon <= n:
        raise ValueError(f"horizon {horizon} is too short for rollouts of {n} sequences: β could reach 0")
    error = min(max(kl / target - 1, -0.2), 0.2)
    return beta * (1 + error * n / horizon)
