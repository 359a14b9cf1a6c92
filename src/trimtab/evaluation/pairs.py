"""How well scores order answers that somebody compared, beside what simple rules would get.

Scores are plain lists, one list per ``Comparison``, one number per answer. A pair the scores call equal counts as half
right. Pairs of one ranking are not independent; intervals account for it (``proportion``).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trimtab.evaluation.bag_of_words import BagOfWords
from trimtab.evaluation.proportion import Proportion, proportion
from trimtab.evaluation.text import words
from trimtab.records import Comparison

Scores = Sequence[Sequence[float]]
Length = Callable[[str], int]


def words_long(text: str) -> int:
    """Length in words."""
    return len(words(text))


@dataclass(frozen=True)
class DecidedPairs:
    """Every decided pair, better first, as columns [M].

    Attributes:
        delta: score of the better - score of the worse.
        length: length of the better - length of the worse.
        margin: how clear the judgement was: difference of ratings; without ratings the row's margin; without
            either the difference of ranks.
        comparison: index of the comparison it comes from.
    """

    delta: NDArray[np.float64]
    length: NDArray[np.float64]
    margin: NDArray[np.float64]
    comparison: NDArray[np.int64]

    def accuracy(self, chosen: NDArray[np.bool_] | None = None) -> Proportion | None:
        """Share with delta > 0 (equal scores count half) among the chosen pairs; None if there are none."""
        pick = np.ones(len(self.delta), dtype=bool) if chosen is None else chosen
        if not pick.any():
            return None
        hits = np.where(self.delta > 0, 1.0, np.where(self.delta == 0, 0.5, 0.0))
        return proportion(hits[pick].tolist(), self.comparison[pick].tolist())


def decided_pairs(comparisons: Sequence[Comparison], scores: Scores, length: Length = words_long) -> DecidedPairs:
    """The decided pairs of ``comparisons`` under ``scores``.

    Raises:
        ValueError: scores that do not fit the answers, or one that is not finite (names the comparison).
    """
    if len(comparisons) != len(scores):
        raise ValueError(f"{len(comparisons)} comparisons but scores for {len(scores)}")
    rows: list[tuple[float, int, float, int]] = []
    for index, (c, row) in enumerate(zip(comparisons, scores, strict=True)):
        if len(row) != len(c.answers) or not all(map(math.isfinite, row)):
            raise ValueError(f"comparison {c.id!r}: {len(c.answers)} answers, scores {list(row)}")
        long = [length(answer) for answer in c.answers]
        rows += [(row[i] - row[j], long[i] - long[j], _margin(c, i, j), index) for i, j in c.pairs()]
    columns = np.array(rows, dtype=np.float64).reshape(-1, 4).T
    return DecidedPairs(columns[0], columns[1], columns[2], columns[3].astype(np.int64))


def _margin(c: Comparison, better: int, worse: int) -> float:
    if c.ratings is not None:
        return c.ratings[better] - c.ratings[worse]
    return c.margin if c.margin is not None else float(c.ranks[worse] - c.ranks[better])


@dataclass(frozen=True)
class AccuracyBin:
    """Accuracy where the binned quantity lies in [low, high] (the first bin) or (low, high] (the others)."""

    low: float
    high: float
    accuracy: Proportion


def accuracy_by(pairs: DecidedPairs, quantity: NDArray[np.float64], bins: int = 4) -> tuple[AccuracyBin, ...]:
    """Accuracy in bins of about equal counts of ``quantity`` (``pairs.margin``, ``pairs.length``).

    Bins are cut at quantiles; many equal values make fewer bins, and every pair is in exactly one.
    """
    if not len(quantity):
        return ()
    edges = np.unique(np.quantile(quantity, np.linspace(0, 1, bins + 1), method="lower"))
    edges = edges if len(edges) > 1 else np.array([edges[0], edges[0]])
    found: list[AccuracyBin] = []
    for b, (low, high) in enumerate(pairwise(edges.tolist())):
        accuracy = pairs.accuracy(((quantity > low) | ((b == 0) & (quantity == low))) & (quantity <= high))
        if accuracy is not None:
            found.append(AccuracyBin(low, high, accuracy))
    return tuple(found)


@dataclass(frozen=True)
class CalibrationBin:
    """Pairs whose confidence max(σ(Δ), σ(-Δ)) fell in one bin: how sure on average, and how often right."""

    confidence: float
    accuracy: float
    n: int


@dataclass(frozen=True)
class Calibration:
    """σ(Δ) against the judgements. ``ece``: expected calibration error, Σ n_b/n·|accuracy - confidence|, 0..0.5."""

    bins: tuple[CalibrationBin, ...]
    ece: float


def calibration(pairs: DecidedPairs, bins: int = 10) -> Calibration:
    """Reliability of σ(Δ) in equal bins of confidence over 0.5..1 (arXiv 1706.04599, eq. 3); empty bins left out.

    Raises:
        ValueError: no pairs.
    """
    if not len(pairs.delta):
        raise ValueError("calibration over no pairs")
    confidence = 1 / (1 + np.exp(-np.abs(pairs.delta)))
    hits = np.where(pairs.delta > 0, 1.0, np.where(pairs.delta == 0, 0.5, 0.0))
    index = np.minimum(((confidence - 0.5) * 2 * bins).astype(int), bins - 1)
    found = tuple(
        CalibrationBin(float(confidence[index == b].mean()), float(hits[index == b].mean()), int((index == b).sum()))
        for b in range(bins)
        if (index == b).any()
    )
    return Calibration(found, sum(b.n * abs(b.accuracy - b.confidence) for b in found) / len(pairs.delta))


def score_length_correlation(
    comparisons: Sequence[Comparison], scores: Scores, length: Length = words_long
) -> float | None:
    """Pearson's r between score and length over all answers; None where either does not vary."""
    x = np.array([s for row in scores for s in row], dtype=np.float64)
    y = np.array([length(answer) for c in comparisons for answer in c.answers], dtype=np.float64)
    if len(x) != len(y):
        raise ValueError(f"{len(x)} scores for {len(y)} answers")
    if len(x) < 2 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return None
    return float(np.corrcoef(x, y)[0, 1])


@dataclass(frozen=True)
class RewardReport:
    """What a reward model's held-out scores are worth.

    Attributes:
        accuracy: of the decided pairs.
        longer_wins: accuracy of preferring the longer answer.
        bag_of_words: accuracy of a bag of words fitted on the training comparisons; None = not fitted.
        by_margin: accuracy by how clear the judgement was.
        by_length: accuracy by length of the better - length of the worse answer.
        length_correlation: Pearson's r of score and length; None where either does not vary.
        calibration: of σ(Δ).
        comparisons, undecided: comparisons read, and pairs among them that are ties (not in any accuracy).
    """

    accuracy: Proportion
    longer_wins: Proportion
    bag_of_words: Proportion | None
    by_margin: tuple[AccuracyBin, ...]
    by_length: tuple[AccuracyBin, ...]
    length_correlation: float | None
    calibration: Calibration
    comparisons: int
    undecided: int

    @property
    def clears_length(self) -> bool:
        """The accuracy's interval lies above what length alone gets, whichever way round it is used."""
        return self.accuracy.low > max(self.longer_wins.share, 1 - self.longer_wins.share)

    def as_dict(self) -> dict[str, Any]:
        """JSON-able, for manifests."""
        return {**asdict(self), "clears_length": self.clears_length}


def reward_report(
    comparisons: Sequence[Comparison], scores: Scores, bag: BagOfWords | None = None, length: Length = words_long
) -> RewardReport:
    """Everything above for one set of held-out comparisons.

    Args:
        comparisons: held out.
        scores: per comparison, one score per answer.
        bag: baseline fitted on training comparisons (``fit_bag_of_words``).
        length: what "longer" counts; words unless told.

    Raises:
        ValueError: no decided pair, or scores that do not fit.
    """
    pairs = decided_pairs(comparisons, scores, length)
    accuracy = pairs.accuracy()
    longer = rule_accuracy(comparisons, lambda answer: float(length(answer)))
    if accuracy is None or longer is None:
        raise ValueError("no decided pair among the held-out comparisons")
    total = sum(len(c.answers) * (len(c.answers) - 1) // 2 for c in comparisons)
    return RewardReport(
        accuracy=accuracy,
        longer_wins=longer,
        bag_of_words=rule_accuracy(comparisons, bag.score) if bag else None,
        by_margin=accuracy_by(pairs, pairs.margin),
        by_length=accuracy_by(pairs, pairs.length),
        length_correlation=score_length_correlation(comparisons, scores, length),
        calibration=calibration(pairs),
        comparisons=len(comparisons),
        undecided=total - len(pairs.delta),
    )


def rule_accuracy(comparisons: Sequence[Comparison], rule: Callable[[str], float]) -> Proportion | None:
    """Accuracy of a rule that scores an answer's text alone (length, VADER, a bag of words); None without a pair."""
    return decided_pairs(comparisons, [[rule(answer) for answer in c.answers] for c in comparisons]).accuracy()
