"""Means within bins of equal counts: does one number say what another turns out to be (a critic's value, a return)?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike


@dataclass(frozen=True)
class MeanBin:
    """One bin.

    Attributes:
        low, high: smallest and largest x in it.
        x: mean of x.
        y: for each quantity, its mean.
        error: for each quantity, the standard error of that mean, as if items were independent (0 for one item).
        n: items.
    """

    low: float
    high: float
    x: float
    y: tuple[float, ...]
    error: tuple[float, ...]
    n: int


def mean_bins(x: ArrayLike, *ys: ArrayLike, bins: int = 10) -> tuple[MeanBin, ...]:
    """Means of every ``y`` in at most ``bins`` bins of about equal counts of ``x``.

    Equal values of x stay together, so many of them make fewer bins; every item is in exactly one.

    Args:
        x: [n], what is binned by.
        ys: [n] each, finite.
        bins: at most this many.

    Raises:
        ValueError: lengths differ, or a number is not finite.
    """
    by = np.asarray(x, dtype=np.float64)
    columns = [np.asarray(y, dtype=np.float64) for y in ys]
    if any(column.shape != by.shape for column in columns) or not all(np.isfinite(c).all() for c in (by, *columns)):
        raise ValueError("bins need as many finite numbers of each quantity")
    if not len(by):
        return ()
    inner = np.unique(np.quantile(by, np.linspace(0, 1, bins + 1)[1:-1], method="lower"))
    place = np.searchsorted(inner, by, side="left")
    found = []
    for index in np.unique(place).tolist():
        chosen = place == index
        n = int(chosen.sum())
        means = tuple(float(column[chosen].mean()) for column in columns)
        errors = tuple(float(column[chosen].std(ddof=1)) / math.sqrt(n) if n > 1 else 0.0 for column in columns)
        part = by[chosen]
        found.append(MeanBin(float(part.min()), float(part.max()), float(part.mean()), means, errors, n))
    return tuple(found)


def calibration_error(bins: Sequence[MeanBin], which: int = 0) -> float:
    """Σ n_b/n·|mean y - mean x|: how far, on average, what was predicted (x) is from what came (y). NaN of no bins."""
    total = sum(b.n for b in bins)
    return sum(b.n * abs(b.y[which] - b.x) for b in bins) / total if total else math.nan
