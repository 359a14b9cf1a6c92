"""What sampled answers look like, whatever they say: variety, repetition, length, and how likely a model finds them."""

from __future__ import annotations

import math
import re
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

_CJK = r"\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"  # scripts without spaces: every character a word
_WORD = re.compile(rf"[{_CJK}]|[^\W{_CJK}]+(?:['\u2019][^\W{_CJK}]+)*")


def words(text: str) -> list[str]:
    """Lower-case words: runs of letters and digits with inner apostrophes; each Chinese or Japanese character alone.

    >>> words("It's a re-make, 好看!")
    ["it's", 'a', 're', 'make', '好', '看']
    """
    return _WORD.findall(text.lower())


def distinct_n(answers: Sequence[Sequence[Hashable]], n: int) -> float:
    """Different n-grams of all answers together / n-grams of all answers together (after arXiv 1510.03055), 0..1.

    The items are whatever the answers are sequences of: token ids (``make demo``'s bound: sampled ids without the end
    token) or ``words``; say which when showing it. It falls as the corpus grows, so compare equal numbers of answers.
    NaN if no answer has n items.
    """
    grams = [gram for answer in answers for gram in _ngrams(answer, n)]
    return len(set(grams)) / len(grams) if grams else math.nan


def repeated_share(answers: Sequence[Sequence[Hashable]], n: int = 4) -> float:
    """Share of n-grams that occurred before *in the same answer*, over all answers (after arXiv 1908.04319), 0..1.

    Unlike ``distinct_n`` it does not depend on the number of answers. NaN if no answer has n items.
    """
    total = repeated = 0
    for answer in answers:
        grams = _ngrams(answer, n)
        total += len(grams)
        repeated += len(grams) - len(set(grams))
    return repeated / total if total else math.nan


@dataclass(frozen=True)
class LengthStats:
    """Lengths of n answers, in whatever they were counted in."""

    n: int
    mean: float
    p10: float
    median: float
    p90: float
    longest: int


def length_stats(lengths: Sequence[int]) -> LengthStats:
    """Mean, quantiles (linear interpolation) and maximum.

    Raises:
        ValueError: no lengths.
    """
    if not lengths:
        raise ValueError("length statistics of no answers")
    p10, median, p90 = (float(q) for q in np.quantile(lengths, [0.1, 0.5, 0.9]))
    return LengthStats(len(lengths), float(np.mean(lengths)), p10, median, p90, max(lengths))


def perplexity(nll: Sequence[float], tokens: Sequence[int]) -> float:
    """exp(Σ NLL / Σ tokens) over the response tokens of all answers together.

    Args:
        nll: per answer, Σ -log p of its response tokens, in nats. Sums, not means.
        tokens: per answer, how many tokens that sum is over.

    Raises:
        ValueError: different lengths, or no tokens at all.
    """
    if len(nll) != len(tokens):
        raise ValueError(f"{len(nll)} sums of NLL but {len(tokens)} token counts")
    if sum(tokens) <= 0:
        raise ValueError("perplexity over no tokens")
    mean = math.fsum(nll) / sum(tokens)
    return math.exp(mean) if mean < 700 else math.inf


def _ngrams(answer: Sequence[Hashable], n: int) -> list[tuple[Hashable, ...]]:
    if n < 1:
        raise ValueError(f"n-grams of {n} items")
    return [tuple(answer[i : i + n]) for i in range(len(answer) - n + 1)]
