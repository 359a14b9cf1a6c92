"""Whitening over marked tokens: two functions, not a flag whose sense libraries disagree on. Axis: T token.

Statistics are those of the marked tokens alone, population form (Σ/n), in float64. Where they are all equal there is
no spread to divide by, and both functions divide by 1.
"""

from __future__ import annotations

import torch
from torch import Tensor


def standardise(x_T: Tensor, mask_T: Tensor) -> Tensor:
    """Mean 0 and standard deviation 1 over the mask; 0 elsewhere.

    Args:
        x_T: float [T]; values off the mask are not read.
        mask_T: bool [T].

    Returns:
        [T] in the dtype of ``x_T``; all 0 over a mask whose values are equal.
    """
    mean, std = _mean_std(x_T, mask_T)
    return _where(mask_T, (x_T.double() - mean) / std, x_T.dtype)


def rescale(x_T: Tensor, mask_T: Tensor) -> Tensor:
    """Standard deviation 1 over the mask by division alone, so every sign stays as it was; 0 elsewhere.

    Args:
        x_T: float [T]; values off the mask are not read.
        mask_T: bool [T].

    Returns:
        [T] in the dtype of ``x_T``; unchanged over a mask whose values are equal.
    """
    _, std = _mean_std(x_T, mask_T)
    return _where(mask_T, x_T.double() / std, x_T.dtype)


def _mean_std(x_T: Tensor, mask_T: Tensor) -> tuple[Tensor, Tensor]:
    x_A = x_T[mask_T].double()
    if not len(x_A):
        return x_A.new_zeros(()), x_A.new_ones(())
    mean = x_A.mean()
    std = (x_A - mean).square().mean().sqrt()
    # Below float32's resolution of the values themselves the spread is rounding noise.
    return mean, torch.where(std > 1e-7 * mean.abs(), std, torch.ones_like(std))


def _where(mask_T: Tensor, wide_T: Tensor, dtype: torch.dtype) -> Tensor:
    return torch.where(mask_T, wide_T, torch.zeros_like(wide_T)).to(dtype)
