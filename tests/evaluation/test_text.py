from __future__ import annotations

import math

import pytest

from trimtab.evaluation.text import distinct_n, length_stats, perplexity, repeated_share, words


def test_words() -> None:
    assert words("It's a RE-make -- worth 10 stars, isn’t it?") == [
        *("it's", "a", "re", "make", "worth", "10", "stars", "isn’t", "it"),
    ]
    assert words("好看 film!") == ["好", "看", "film"]
    assert words("Überraschend  ...") == ["überraschend"]
    assert words("") == words(" - '' ") == []


def test_distinct_counts_over_all_answers() -> None:
    assert distinct_n([[1, 2, 3]], 1) == 1.0
    assert distinct_n([[1, 2, 1, 2], [1, 2]], 2) == 2 / 4  # (1,2) (2,1) of 1-2, 2-1, 1-2, 1-2
    assert distinct_n([words("a b"), words("a c"), words("a")], 2) == 1.0
    assert distinct_n([[7, 7, 7, 7, 7]], 2) == 1 / 4


def test_repetition_is_counted_within_an_answer() -> None:
    assert repeated_share([[1, 2, 3, 4], [1, 2, 3, 4]], 2) == 0.0
    assert repeated_share([[1, 2, 1, 2, 1]], 2) == 2 / 4
    assert repeated_share([[5] * 10, [1, 2, 3]], 2) == 8 / 11


def test_nothing_to_count_is_not_zero() -> None:
    assert math.isnan(distinct_n([[1], []], 2)) and math.isnan(repeated_share([[1, 2, 3]], 4))
    with pytest.raises(ValueError, match="0 items"):
        distinct_n([[1]], 0)


def test_lengths() -> None:
    got = length_stats([1, 2, 3, 4, 10])
    assert (got.n, got.mean, got.median, got.longest) == (5, 4.0, 3.0, 10)
    assert (got.p10, got.p90) == pytest.approx((1.4, 7.6))
    with pytest.raises(ValueError, match="no answers"):
        length_stats([])


def test_perplexity_of_guessing_among_v_tokens_is_v() -> None:
    assert perplexity([3 * math.log(50), 7 * math.log(50)], [3, 7]) == pytest.approx(50)


def test_perplexity_is_over_tokens_not_over_answers() -> None:
    """One answer of 1 token at 1/2, one of 3 tokens at 1/8 each: (2 · 8³)^(1/4)."""
    got = perplexity([math.log(2), 3 * math.log(8)], [1, 3])
    assert got == pytest.approx((2 * 8**3) ** 0.25)
    assert got == pytest.approx(perplexity([math.log(2) + 3 * math.log(8)], [4]))


def test_perplexity_edges() -> None:
    assert perplexity([0.0], [5]) == 1.0
    assert perplexity([1e6], [1]) == math.inf
    with pytest.raises(ValueError, match="no tokens"):
        perplexity([0.0], [0])
    with pytest.raises(ValueError, match="1 sums"):
        perplexity([0.0], [1, 2])
