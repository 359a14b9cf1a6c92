"""Score -> reward: the shaping parts in the order the recipe lists them, and what happens to truncated answers.

Each part is a small pure function of rewards [N] and running moments; ``SHAPERS`` is the whole list.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from trimtab.algorithms.ppo.config import Clip, Normalise, Penalty, Scale, ShapingPart, Truncated
from trimtab.ops.moments import Moments, normalise, scale


def _normalise(reward_N: Tensor, part: Normalise, moments: Moments) -> Tensor:
    return normalise(reward_N, moments) if moments.count >= part.min_count else reward_N


def _scale(reward_N: Tensor, part: Scale, moments: Moments) -> Tensor:
    return scale(reward_N, moments) if moments.count >= part.min_count else reward_N


def _clip(reward_N: Tensor, part: Clip, moments: Moments) -> Tensor:
    return reward_N.clamp(-part.limit, part.limit)


SHAPERS: dict[type, Callable[..., Tensor]] = {Normalise: _normalise, Scale: _scale, Clip: _clip}


@dataclass(frozen=True)
class Shaped:
    """Rewards [N] (0 where an answer has neither score nor penalty), and the share of scored answers clipped."""

    reward_N: Tensor
    clipped: float


def shape(
    score_N: Tensor,
    scored_N: Tensor,
    truncated_N: Tensor,
    parts: Sequence[ShapingPart],
    truncated: Truncated,
    moments: Moments,
) -> Shaped:
    """Apply the parts to the scored answers, then the penalty to truncated ones.

    Args:
        score_N: float [N], raw scores; not read where ``scored_N`` is False.
        scored_N: bool [N], answers that a scorer has scored (truncated ones only under ``complete``).
        truncated_N: bool [N].
        parts: in order.
        truncated: the policy for truncated answers; ``penalty`` is added after every part, in the units they leave.
        moments: of all scores so far, this rollout's included (a part updates before it normalises).
    """
    reward_A = score_N[scored_N]
    clipped = 0.0
    for part in parts:
        before = reward_A
        reward_A = SHAPERS[type(part)](reward_A, part, moments)
        if isinstance(part, Clip) and len(before):
            clipped = float((reward_A != before).double().mean())
    reward_N = torch.zeros_like(score_N)
    reward_N[scored_N] = reward_A
    if isinstance(truncated, Penalty):
        reward_N = reward_N + torch.where(truncated_N, truncated.value, 0.0)
    return Shaped(reward_N, clipped)


def settled(parts: Sequence[ShapingPart], moments: Moments) -> bool:
    """Every part that divides by σ has seen its ``min_count``: ``affine`` will not jump any more."""
    return all(moments.count >= part.min_count for part in parts if isinstance(part, (Normalise, Scale)))


def affine(parts: Sequence[ShapingPart], moments: Moments) -> tuple[float, float]:
    """``(a, b)`` such that shaping is ``a·score + b`` up to clipping: what a critic must be composed with.

    A critic that starts as the reward model predicts raw scores; rewards reach it shaped. Without this it starts
    mis-scaled, and the value clip holds it there.
    """
    a, b = 1.0, 0.0
    for part in parts:
        if isinstance(part, (Normalise, Scale)) and moments.count >= part.min_count:
            shift = moments.mean if isinstance(part, Normalise) else 0.0
            a, b = a / moments.unit, (b - shift) / moments.unit
    return a, b
