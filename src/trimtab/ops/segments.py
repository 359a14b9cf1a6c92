"""Sums, means and counts over the tokens of each sequence of a flat batch.

Axes: T token, N sequence. Accumulation is in float64 and in token order, so on the CPU a sequence's result does not
depend, to the bit, on what else is in the batch; on CUDA it is the same from run to run.
"""

from __future__ import annotations

import torch
from torch import Tensor


def sum_by_sequence(x_T: Tensor, sequence_T: Tensor, n: int) -> Tensor:
    """Σ of ``x_T`` over the tokens of each sequence.

    Args:
        x_T: float [T]; gradients flow.
        sequence_T: int64 [T], sequence of each token, 0 <= value < n, in any order.
        n: number of sequences.

    Returns:
        [N], float32 (float64 if ``x_T`` is); 0 for a sequence without tokens.

    Raises:
        IndexError, RuntimeError: a sequence index is out of range (on the CPU).
    """
    wide_T = x_T.double()
    zero_N = wide_T.new_zeros(n)
    if x_T.device.type == "cpu":
        sum_N = zero_N.index_add(0, sequence_T, wide_T)
    else:
        # CUDA's index_add adds in whatever order its atomics land; accumulating index_put sorts first.
        sum_N = zero_N.index_put((sequence_T,), wide_T, accumulate=True)
    return sum_N if x_T.dtype == torch.float64 else sum_N.float()


def count_by_sequence(mask_T: Tensor, sequence_T: Tensor, n: int) -> Tensor:
    """Number of marked tokens of each sequence: bool [T], int64 [T] -> int64 [N]."""
    return torch.zeros(n, dtype=torch.long, device=mask_T.device).index_add(0, sequence_T, mask_T.long())


def mean_by_sequence(x_T: Tensor, mask_T: Tensor, sequence_T: Tensor, n: int) -> Tensor:
    """Mean of ``x_T`` over the marked tokens of each sequence.

    Args:
        x_T: float [T]; gradients flow to marked tokens, values elsewhere are not read (they may be NaN).
        mask_T: bool [T].
        sequence_T: int64 [T].
        n: number of sequences.

    Returns:
        [N], float32 (float64 if ``x_T`` is). NaN for a sequence without a marked token: it has no mean, and a 0 would
        pass for one; leave such sequences out by ``count_by_sequence`` before averaging over sequences.
    """
    sum_N = sum_by_sequence(torch.where(mask_T, x_T, torch.zeros_like(x_T)), sequence_T, n)
    return sum_N / count_by_sequence(mask_T, sequence_T, n).to(sum_N.dtype)
