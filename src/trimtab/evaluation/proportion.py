"""Shares with intervals, where items may come in clusters (several pairs from one ranking)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np


@dataclass(frozen=True)
class Proportion:
    """A share of n items, its interval, and how many independent items they are worth."""

    share: float
    low: float
    high: float
    n: int
    effective: float


def wilson(share: float, n: float, level: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval of a proportion (E. B. Wilson, JASA 22 (1927)), within 0..1.

    Args:
        share: observed, 0..1; ties counted as halves are allowed.
        n: number of independent items, > 0, need not be whole.
        level: coverage.

    Raises:
        ValueError: no items, or a share outside 0..1.
    """
    if n <= 0 or not 0 <= share <= 1:
        raise ValueError(f"no interval for a share of {share} of {n} items")
    z = NormalDist().inv_cdf((1 + level) / 2)
    centre = share + z * z / (2 * n)
    spread = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    return max(0.0, (centre - spread) / scale), min(1.0, (centre + spread) / scale)


def proportion(hits: Sequence[float], clusters: Sequence[int] | None = None, level: float = 0.95) -> Proportion:
    """Share of hits with Wilson's interval on the *effective* number of items.

    Pairs of one ranking share answers: six pairs of four answers do not tell as much as six pairs of twelve. The
    effective number is n over the design effect: the variance of the share estimated between clusters (ratio estimator;
    L. Kish, "Survey Sampling" (1965), §6.4) over that of independent items. It is never more than n, and at unanimity,
    where the ratio is 0/0, the number of clusters.

    Args:
        hits: per item 1 (right), 0 (wrong) or 0.5 (undecided).
        clusters: per item the cluster it belongs to; null = items are independent.
        level: coverage.

    Raises:
        ValueError: no items, or lengths differ.
    """
    x = np.asarray(hits, dtype=np.float64)
    if not len(x) or (clusters is not None and len(clusters) != len(x)):
        raise ValueError(f"a proportion of {len(x)} items in {len(clusters or ())} cluster entries")
    share, effective = float(x.mean()), float(len(x))
    if clusters is not None:
        _, index = np.unique(np.asarray(clusters), return_inverse=True)
        groups = int(index.max()) + 1
        independent = share * (1 - share) / len(x)
        residual = np.bincount(index, weights=x - share)
        between = float((residual**2).sum()) / len(x) ** 2
        if independent == 0:
            effective = float(groups)
        elif between > independent:
            effective = len(x) * independent / between
    return Proportion(share, *wilson(share, effective, level), len(x), effective)
