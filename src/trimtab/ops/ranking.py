"""Losses of a reward model per pair of answers. Axis: M pair.

R. A. Bradley, M. E. Terry (1952): P(a beats b) = σ(r_a - r_b). All with ``logsigmoid``: log(σ(Δ) + ε) has no gradient
left for exactly the pairs that are ranked worst.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import logsigmoid


def pair_loss(better_M: Tensor, worse_M: Tensor, margin_M: Tensor | float = 0.0, smoothing: float = 0.0) -> Tensor:
    """-(1-a)·log σ(Δ) - a·log σ(-Δ) with Δ = better - worse - margin.

    arXiv 2203.02155, eq. 1; the margin is arXiv 2307.09288's, eq. 2.

    Args:
        better_M: [M] scores of the preferred answers.
        worse_M: [M] scores of the others.
        margin_M: [M] or one number, in score units, by which the better score should lead.
        smoothing: a, the share of judgements taken to be flipped, 0 <= a < 0.5; the least loss is then at
            Δ = log((1-a)/a) instead of infinity.

    Returns:
        [M], nats.

    Raises:
        ValueError: ``smoothing`` is outside [0, 0.5).
    """
    if not 0 <= smoothing < 0.5:
        raise ValueError(f"smoothing must be at least 0 and below 0.5, not {smoothing}")
    delta_M = better_M - worse_M - margin_M
    if not smoothing:
        return -logsigmoid(delta_M)
    return -(1 - smoothing) * logsigmoid(delta_M) - smoothing * logsigmoid(-delta_M)


def soft_pair_loss(a_M: Tensor, b_M: Tensor, target_M: Tensor | float) -> Tensor:
    """-t·log σ(a - b) - (1-t)·log σ(b - a): cross entropy with a soft label.

    Args:
        a_M: [M] scores.
        b_M: [M] scores.
        target_M: [M] or one number: t, the share of judges who prefer a; 1/2 for a tie.

    Returns:
        [M], nats; least where σ(a - b) = t.
    """
    delta_M = a_M - b_M
    return -target_M * logsigmoid(delta_M) - (1 - target_M) * logsigmoid(-delta_M)


def centring(better_M: Tensor, worse_M: Tensor) -> Tensor:
    """(better + worse)² per pair, [M]: pins the offset that pair losses leave free (arXiv 2312.09244, eq. 2)."""
    return (better_M + worse_M).square()
