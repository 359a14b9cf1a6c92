"""Estimators of KL(π ‖ π_ref) per token, from tokens sampled from π. Axis: T token.

Names after J. Schulman, "Approximating KL Divergence" (2020): with x ~ π and r = π_ref(x)/π(x)::

    k1 = -log r              unbiased, high variance, may be negative
    k2 = (log r)² / 2        biased, low variance, >= 0
    k3 = (r - 1) - log r     unbiased, low variance, >= 0

Where each is allowed (a quantity shown to a person carries its estimator's name):

- **in the reward**: ``k1``. The policy gradient of E[-β k1] is that of -β KL, and γ = 1 makes the sum over a sequence
  the log-ratio of the whole answer.
- **as a term of the loss**: ``k2_with_ratio``. Differentiating k1 gives E[∇ log π] = 0 in expectation; differentiating
  k3 gives the gradient of another divergence (the forward one, to first order). ∇k2 = (log π - log π_ref) ∇ log π is
  the gradient of KL(π ‖ π_ref).
- **for display and for stopping rules**: ``k3``; never as a loss.
"""

from __future__ import annotations

import torch
from torch import Tensor


def k1(logp_T: Tensor, ref_T: Tensor) -> Tensor:
    """log π - log π_ref: [T], [T] -> [T] nats. For the reward only; as a loss its expected gradient is zero."""
    return logp_T - ref_T


def k2(logp_T: Tensor, ref_T: Tensor) -> Tensor:
    """(log π - log π_ref)²/2: [T], [T] -> [T] nats. As a loss on tokens of an older policy use ``k2_with_ratio``."""
    return 0.5 * (logp_T - ref_T).square()


def k3(logp_T: Tensor, ref_T: Tensor) -> Tensor:
    """r - 1 - log r with r = π_ref/π: [T], [T] -> [T] nats, >= 0. For display and stopping rules, not a loss."""
    log_r_T = ref_T - logp_T
    return torch.expm1(log_r_T) - log_r_T


def k2_with_ratio(logp_T: Tensor, old_logp_T: Tensor, ref_T: Tensor) -> Tensor:
    """ρ·k2 with ρ = π/π_old held constant: the KL term of a loss on tokens sampled from π_old.

    Its gradient, Σ_x π_old(x) ρ(x) (log π - log π_ref) ∇ log π, is ∇KL(π ‖ π_ref) of each token's distribution. ρ is
    detached because its own gradient would add E[k2 ∇ log π], which belongs to no divergence.

    Args:
        logp_T: [T] under the policy being trained (with gradient).
        old_logp_T: [T] under the policy that sampled.
        ref_T: [T] under the reference.

    Returns:
        [T] nats. Only the gradient estimates something useful; for a value to show take ``k3``.
    """
    return (logp_T - old_logp_T).detach().exp() * k2(logp_T, ref_T)
