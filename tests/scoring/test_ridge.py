"""The ridge on word counts, against the normal equations written out densely."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from trimtab.protocols import ToScore
from trimtab.scoring.ridge import ALPHAS, RidgeScorer, choose_alpha, count, solve, words

TEXTS = ["good good film", "bad film", "a good story", "bad bad story!", "the film", "good! story", "a bad story", "!"]
RATINGS = [3.0, -2.0, 2.0, -3.0, 0.5, 2.5, -1.0, 0.0]


def dense(texts: list[str], vocabulary: dict[str, int]) -> np.ndarray:
    x = np.zeros((len(texts), len(vocabulary)))
    for row, text in enumerate(texts):
        for word in words(text):
            if word in vocabulary:
                x[row, vocabulary[word]] += 1
    return x


def closed_form(x: np.ndarray, y: np.ndarray, alpha: float) -> tuple[np.ndarray, float]:
    """(XᵀX + αI)⁻¹ Xᵀy with an extra column of ones that is not penalised."""
    whole = np.hstack([x, np.ones((len(x), 1))])
    penalty = alpha * np.diag([1.0] * x.shape[1] + [0.0])
    solution = np.linalg.solve(whole.T @ whole + penalty, whole.T @ y)
    return solution[:-1], float(solution[-1])


def test_words() -> None:
    assert words("It's GOOD, isn\u2019t it? Ça va!  4 3-D_x &amp;") == [
        "it's", "good", "isn't", "it", "?", "ça", "va", "!", "d", "x", "amp",
    ]  # fmt: skip


@pytest.mark.parametrize("alpha", [0.1, 1.0, 50.0])
def test_the_solution_is_the_closed_form(alpha: float) -> None:
    scorer = RidgeScorer.fit(TEXTS, RATINGS, alpha=alpha, min_count=1)
    weights, intercept = closed_form(dense(TEXTS, scorer.vocabulary), np.array(RATINGS), alpha)
    np.testing.assert_allclose(scorer.weights, weights, atol=1e-7)
    assert scorer.intercept == pytest.approx(intercept, abs=1e-7)
    np.testing.assert_allclose(scorer.predict(TEXTS), dense(TEXTS, scorer.vocabulary) @ weights + intercept, atol=1e-6)


@settings(max_examples=40, deadline=None)
@given(
    texts=st.lists(st.lists(st.sampled_from("abcdefg"), max_size=8).map(" ".join), min_size=2, max_size=15),
    alpha=st.floats(0.01, 100),
    seed=st.integers(0, 99),
)
def test_the_solution_is_the_closed_form_on_any_counts(texts: list[str], alpha: float, seed: int) -> None:
    vocabulary = {letter: i for i, letter in enumerate("abcdefg")}
    ratings = np.random.default_rng(seed).normal(size=len(texts))
    weights, intercept = solve(count(texts, vocabulary), ratings, alpha)
    expected, at_zero = closed_form(dense(texts, vocabulary), ratings, alpha)
    np.testing.assert_allclose(weights, expected, atol=1e-5)
    assert intercept == pytest.approx(at_zero, abs=1e-5)


def test_a_shift_of_all_ratings_moves_the_intercept_alone() -> None:
    one, two = (
        RidgeScorer.fit(TEXTS, RATINGS, min_count=1),
        RidgeScorer.fit(TEXTS, [r + 10 for r in RATINGS], min_count=1),
    )
    np.testing.assert_allclose(one.weights, two.weights, atol=1e-9)
    assert two.intercept - one.intercept == pytest.approx(10)


def test_an_infinite_penalty_leaves_the_mean() -> None:
    assert RidgeScorer.fit(TEXTS, RATINGS, alpha=1e9).predict(["bad"])[0] == pytest.approx(np.mean(RATINGS), abs=1e-6)


def test_rare_words_and_unknown_words_weigh_nothing() -> None:
    scorer = RidgeScorer.fit(TEXTS, RATINGS, min_count=2)
    assert "the" not in scorer.vocabulary and "a" in scorer.vocabulary
    unseen = scorer.predict(["zebra crossing", ""])
    np.testing.assert_allclose(unseen, scorer.intercept)


def test_scores_are_predictions_of_the_answer_alone() -> None:
    scorer = RidgeScorer.fit(TEXTS, RATINGS, alpha=1.0)
    messages = ({"role": "user", "content": "bad bad bad"},)
    good, bad = scorer.score([ToScore("1", messages, "good film"), ToScore("2", (), "bad film")])
    assert good is not None and bad is not None and good > 1 > -1 > bad
    assert [good, bad] == list(scorer.predict(["good film", "bad film"]))
    assert scorer.name == "ridge"
    assert scorer.score([]) == []


def noisy(seed: int, noise: float) -> tuple[list[str], list[float]]:
    rng = np.random.default_rng(seed)
    vocabulary = [f"w{chr(97 + i)}" for i in range(20)]
    worth = dict(zip(vocabulary, rng.normal(size=20), strict=True))
    texts = [" ".join(rng.choice(vocabulary, size=6)) for _ in range(120)]
    return texts, [sum(worth[w] for w in t.split()) + noise * rng.normal() for t in texts]


def test_cross_validation_penalises_noise_more() -> None:
    chosen = [RidgeScorer.fit(*noisy(1, noise), alpha=None).alpha for noise in (0.1, 5.0, 40.0)]
    assert chosen == sorted(chosen)
    assert chosen[0] == ALPHAS[0] and chosen[-1] == ALPHAS[-1]


def test_cross_validation_is_the_error_written_out() -> None:
    texts, ratings = noisy(2, 5.0)
    vocabulary = {word: i for i, word in enumerate(sorted({w for t in texts for w in t.split()}))}
    x, y = dense(texts, vocabulary), np.array(ratings)
    errors = {}
    for alpha in (3.0, 30.0):
        errors[alpha] = 0.0
        for fold in range(4):
            held = np.arange(len(y)) % 4 == fold
            weights, intercept = closed_form(x[~held], y[~held], alpha)
            errors[alpha] += float(((x[held] @ weights + intercept - y[held]) ** 2).sum())
    assert choose_alpha(count(texts, vocabulary), y, (3.0, 30.0), folds=4) == min(errors, key=lambda a: errors[a])


@pytest.mark.parametrize(
    ("texts", "ratings", "alpha"), [(["a"], [1.0], 1.0), (["a", "b"], [1.0], 1.0), (["a", "b"], [1.0, 2.0], 0.0)]
)
def test_what_cannot_be_fitted_is_refused(texts: list[str], ratings: list[float], alpha: float) -> None:
    with pytest.raises(ValueError, match="at least two|above 0"):
        RidgeScorer.fit(texts, ratings, alpha=alpha)


def test_texts_without_a_shared_word_give_the_mean() -> None:
    scorer = RidgeScorer.fit(["one", "two"], [1.0, 2.0])
    assert isinstance(scorer, RidgeScorer) and scorer.vocabulary == {}
    assert scorer.predict(["three"])[0] == 1.5
