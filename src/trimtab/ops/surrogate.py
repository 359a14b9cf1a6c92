"""PPO's clipped losses per token (arXiv 1707.06347, eq. 7; value clip: arXiv 2005.12729, §3). Axis: T token.

Both return the losses and where the clip took the gradient away; averaging, and leaving out tokens that are no
actions, is the caller's.
"""

from __future__ import annotations

import torch
from torch import Tensor


def policy_loss(
    logp_T: Tensor,
    old_logp_T: Tensor,
    advantage_T: Tensor,
    clip_low: float | None = None,
    clip_high: float | None = None,
    dual_clip: float | None = None,
) -> tuple[Tensor, Tensor]:
    """max(-Aρ, -A·clip(ρ, 1 - clip_low, 1 + clip_high)) with ρ = π/π_old; for A < 0 at most -A·dual_clip.

    Args:
        logp_T: [T] under the policy being trained (with gradient).
        old_logp_T: [T] under the policy that sampled.
        advantage_T: [T].
        clip_low: ε below 1; null leaves that side open.
        clip_high: ε above 1; null leaves that side open.
        dual_clip: c > 1, bounds the loss of bad actions that became likely (arXiv 1912.09729); null = unbounded.

    Returns:
        (loss_T, clipped_T): [T] with gradient, and bool [T], True where a clip decides and the gradient is zero.

    Raises:
        ValueError: ``dual_clip`` is not above 1 (it would undo the policy itself).
    """
    if dual_clip is not None and dual_clip <= 1:
        raise ValueError(f"dual_clip must be above 1, not {dual_clip}")
    ratio_T = (logp_T - old_logp_T).exp()
    free_T = loss_T = -advantage_T * ratio_T
    clipped_T = torch.zeros_like(free_T, dtype=torch.bool)
    if clip_low is not None or clip_high is not None:
        low = None if clip_low is None else 1 - clip_low
        high = None if clip_high is None else 1 + clip_high
        bound_T = -advantage_T * ratio_T.clamp(low, high)
        loss_T, clipped_T = torch.maximum(free_T, bound_T), bound_T > free_T
    if dual_clip is not None:
        most_T = -advantage_T * dual_clip
        over_T = (advantage_T < 0) & (loss_T > most_T)
        loss_T, clipped_T = torch.where(over_T, most_T, loss_T), clipped_T | over_T
    return loss_T, clipped_T


def value_loss(
    value_T: Tensor, old_value_T: Tensor, return_T: Tensor, clip: float | None = None
) -> tuple[Tensor, Tensor]:
    """0.5·max((V - R)², (V_old + clip(V - V_old, ±clip) - R)²).

    Args:
        value_T: [T] of the critic being trained (with gradient).
        old_value_T: [T] at the time of the rollout.
        return_T: [T], the target.
        clip: ε_v in units of the return; null = the plain squared error.

    Returns:
        (loss_T, clipped_T): [T] with gradient, and bool [T], True where the clip decides and the gradient is zero.
    """
    free_T = (value_T - return_T).square()
    if clip is None:
        return 0.5 * free_T, torch.zeros_like(free_T, dtype=torch.bool)
    near_T = old_value_T + (value_T - old_value_T).clamp(-clip, clip)
    bound_T = (near_T - return_T).square()
    return 0.5 * torch.maximum(free_T, bound_T), bound_T > free_T
