"""A bag of words fitted to comparisons: what a reward model must beat to have read more than the words.

Bradley-Terry with a linear score: least λ/2·|w|² + Σ -log σ(w·(x_better - x_worse)), x = log(1 + count of each word).
By Newton's method with conjugate gradients; the problem is convex, so the result depends on the data and λ alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trimtab.evaluation.text import words
from trimtab.records import Comparison

Vector = NDArray[np.float64]


@dataclass(frozen=True)
class BagOfWords:
    """A linear score of an answer's words; words not seen in training weigh nothing."""

    weights: Mapping[str, float]

    def score(self, text: str) -> float:
        """Σ weight·log(1 + count) over the words of ``text``."""
        return float(sum(self.weights.get(w, 0.0) * np.log1p(c) for w, c in Counter(words(text)).items()))


def fit_bag_of_words(comparisons: Sequence[Comparison], *, l2: float = 1.0, min_count: int = 2) -> BagOfWords:
    """Fits on the decided pairs of *training* comparisons; the pairs of one comparison weigh 1 together.

    Args:
        comparisons: training split only.
        l2: λ.
        min_count: answers a word must occur in.

    Raises:
        ValueError: no decided pair, or ``l2`` is not positive.
    """
    if l2 <= 0:
        raise ValueError(f"l2 must be positive, not {l2}")
    answers = [Counter(words(answer)) for c in comparisons for answer in c.answers]
    spread = Counter(word for counts in answers for word in counts)
    vocabulary = sorted(word for word, n in spread.items() if n >= min_count)
    index = {word: i for i, word in enumerate(vocabulary)}
    entries = [(a, index[w], np.log1p(n)) for a, counts in enumerate(answers) for w, n in counts.items() if w in index]
    better, worse, weight, offset = [], [], [], 0
    for c in comparisons:
        pairs = c.pairs()
        better += [offset + i for i, _ in pairs]
        worse += [offset + j for _, j in pairs]
        weight += [1 / len(pairs) for _ in pairs]
        offset += len(c.answers)
    if not better:
        raise ValueError("a bag of words needs at least one decided pair")
    problem = _Pairs(
        row=np.array([e[0] for e in entries], dtype=np.int64),
        column=np.array([e[1] for e in entries], dtype=np.int64),
        value=np.array([e[2] for e in entries], dtype=np.float64),
        shape=(len(answers), len(vocabulary)),
        better=np.array(better),
        worse=np.array(worse),
        weight=np.array(weight),
    )
    return BagOfWords(dict(zip(vocabulary, _newton(problem, l2).tolist(), strict=True)))


@dataclass(frozen=True)
class _Pairs:
    """The sparse matrix D·X of count differences per pair, kept as X [answers, words] and the pairs' indices."""

    row: NDArray[np.int64]
    column: NDArray[np.int64]
    value: Vector
    shape: tuple[int, int]
    better: NDArray[np.int64]
    worse: NDArray[np.int64]
    weight: Vector

    def times(self, w: Vector) -> Vector:
        score = _sums(self.row, self.value * w[self.column], self.shape[0])
        return score[self.better] - score[self.worse]

    def transposed(self, g: Vector) -> Vector:
        back = _sums(self.better, g, self.shape[0]) - _sums(self.worse, g, self.shape[0])
        return _sums(self.column, self.value * back[self.row], self.shape[1])


def _sums(index: NDArray[np.int64], value: Vector, size: int) -> Vector:
    return np.bincount(index, value, size).astype(np.float64, copy=False)


def _newton(problem: _Pairs, l2: float, tolerance: float = 1e-8, most: int = 50) -> Vector:
    w = np.zeros(problem.shape[1])

    def objective(delta: Vector, w: Vector) -> float:
        return float((problem.weight * np.logaddexp(0, -delta)).sum() + 0.5 * l2 * (w @ w))

    for _ in range(most):
        delta = problem.times(w)
        lose = np.exp(-np.logaddexp(0, delta))  # σ(-Δ)
        gradient = l2 * w - problem.transposed(problem.weight * lose)
        if np.linalg.norm(gradient) <= tolerance * max(1.0, float(problem.weight.sum())):
            break
        curvature = problem.weight * lose * (1 - lose)
        step = _conjugate_gradient(problem, curvature, l2, gradient)
        size, now = 1.0, objective(delta, w)
        while size > 1e-6 and objective(problem.times(w - size * step), w - size * step) > now:
            size /= 2
        w = w - size * step
    return w


def _conjugate_gradient(problem: _Pairs, curvature: Vector, l2: float, target: Vector) -> Vector:
    x, residual = np.zeros_like(target), target.copy()
    direction, square = residual.copy(), float(residual @ residual)
    goal = 1e-12 * square
    for _ in range(500):
        if square <= goal:
            break
        image = l2 * direction + problem.transposed(curvature * problem.times(direction))
        length = square / float(direction @ image)
        x, residual = x + length * direction, residual - length * image
        square, before = float(residual @ residual), square
        direction = residual + square / before * direction
    return x
