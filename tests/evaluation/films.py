"""Comparisons written for these tests: each answer is a few words, some of which are good or bad."""

from __future__ import annotations

import numpy as np

from trimtab.records import Comparison, Message, Prompt

ASK = Prompt("ask", (Message("user", "Write one sentence of a film review."),))
GOOD, BAD = ("superb", "warm", "clever"), ("dull", "clumsy", "empty")
PLAIN = ("the", "film", "is", "a", "story", "of", "two", "friends", "in", "town")


def comparison(name: str, *answers: str, ranks: tuple[int, ...], **other) -> Comparison:
    return Comparison(name, ASK, answers, ranks, **other)


def reviews(seed: int, count: int, k: int = 3) -> list[Comparison]:
    """``count`` rankings of ``k`` answers whose rating is good words less bad words; equal ratings are ties."""
    rng = np.random.default_rng(seed)
    made = []
    for i in range(count):
        answers, ratings = [], []
        for _ in range(k):
            good, bad = rng.integers(0, 3, size=2)
            words = [*rng.choice(GOOD, good), *rng.choice(BAD, bad), *rng.choice(PLAIN, rng.integers(2, 8))]
            answers.append(" ".join(rng.permutation(words)))
            ratings.append(float(good - bad))
        ranks = tuple(1 + sum(other > own for other in ratings) for own in ratings)
        made.append(comparison(f"c{i}", *answers, ranks=ranks, ratings=tuple(ratings)))
    return made
