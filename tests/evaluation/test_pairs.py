from __future__ import annotations

import json
import math
from itertools import pairwise

import numpy as np
import pytest

from evaluation.films import ASK, comparison, reviews
from trimtab.evaluation.bag_of_words import fit_bag_of_words
from trimtab.evaluation.pairs import (
    DecidedPairs,
    accuracy_by,
    calibration,
    decided_pairs,
    reward_report,
    rule_accuracy,
    score_length_correlation,
)
from trimtab.records import Comparison


def columns(delta: list[float]) -> DecidedPairs:
    n = len(delta)
    return DecidedPairs(np.array(delta), np.zeros(n), np.ones(n), np.arange(n))


def test_columns_of_a_ranking_with_a_tie() -> None:
    row = comparison("a", "one two three", "one", "one two", ranks=(1, 2, 2), ratings=(3.0, 1.0, 0.5))
    pairs = decided_pairs([row], [[0.5, 2.0, -1.0]])
    assert pairs.delta.tolist() == [-1.5, 1.5]
    assert pairs.length.tolist() == [2, 1]
    assert pairs.margin.tolist() == [2.0, 2.5]
    assert pairs.comparison.tolist() == [0, 0]
    accuracy = pairs.accuracy()
    assert accuracy is not None and accuracy.share == 0.5 and accuracy.n == 2


def test_margin_falls_back_to_the_rows_margin_and_then_to_ranks() -> None:
    with_margin = comparison("m", "a", "b", ranks=(2, 1), margin=0.75)
    bare = comparison("r", "a", "b", "c", ranks=(3, 1, 2))
    assert decided_pairs([with_margin, bare], [[0, 0], [0, 0, 0]]).margin.tolist() == [0.75, 2, 1, 1]


def test_right_reversed_and_indifferent_scores() -> None:
    rows = reviews(0, 30)
    truth = [list(row.ratings or ()) for row in rows]
    for scores, share in (
        (truth, 1.0),
        ([[-s for s in row] for row in truth], 0.0),
        ([[4.0] * len(row) for row in truth], 0.5),
        ([[2 * s + 100 for s in row] for row in truth], 1.0),
    ):
        accuracy = decided_pairs(rows, scores).accuracy()
        assert accuracy is not None and accuracy.share == share


def test_rules_are_scores_of_the_text_alone() -> None:
    rows = [comparison("a", "long answer", "short", ranks=(1, 2)), comparison("b", "a b c", "a", ranks=(2, 1))]
    longer = rule_accuracy(rows, lambda text: len(text))
    assert longer is not None and longer.share == 0.5
    assert rule_accuracy([Comparison("t", ASK, ("a", "b"), (1, 1))], len) is None


def test_scores_that_do_not_fit_are_named() -> None:
    rows = [comparison("first", "a", "b", ranks=(1, 2)), comparison("second", "a", "b", ranks=(1, 2))]
    with pytest.raises(ValueError, match=r"'second': 2 answers, scores \[1\]"):
        decided_pairs(rows, [[1, 2], [1]])
    with pytest.raises(ValueError, match="'first'"):
        decided_pairs(rows, [[1, math.nan], [1, 2]])
    with pytest.raises(ValueError, match="2 comparisons but scores for 1"):
        decided_pairs(rows, [[1, 2]])


@pytest.mark.parametrize("values", [[0.0] * 50, [1.0] * 49 + [2.0], list(range(50)), [i % 3 for i in range(50)]])
def test_bins_hold_every_pair_once(values: list[float]) -> None:
    pairs = columns([1.0, -1.0] * 25)
    bins = accuracy_by(pairs, np.array(values, dtype=float))
    assert sum(b.accuracy.n for b in bins) == 50
    assert sum(b.accuracy.n * b.accuracy.share for b in bins) == pytest.approx(25)
    assert all(left.high == right.low for left, right in pairwise(bins))
    assert (bins[0].low, bins[-1].high) == (min(values), max(values))


def test_bins_tell_hard_pairs_from_easy_ones() -> None:
    margin = np.array([0.1, 0.2, 0.3, 0.4, 5.0, 6.0, 7.0, 8.0])
    pairs = columns([-1.0, 1.0, -1.0, 1.0, 1.0, 1.0, 1.0, 1.0])
    assert [b.accuracy.share for b in accuracy_by(pairs, margin, bins=2)] == [0.5, 1.0]


def judged(sharpness: float) -> DecidedPairs:
    """20,000 pairs judged as often one way as σ(d) says, by a model that claims d·sharpness."""
    rng = np.random.default_rng(0)
    d = rng.normal(0, 2, size=20000)
    won = rng.random(20000) < 1 / (1 + np.exp(-d))
    return columns((np.where(won, d, -d) * sharpness).tolist())


def test_calibration() -> None:
    honest, bold, shy = (calibration(judged(s)) for s in (1.0, 4.0, 0.25))
    assert honest.ece < 0.02 < 0.1 < min(bold.ece, shy.ece)
    assert all(abs(b.accuracy - b.confidence) < 0.05 for b in honest.bins)
    assert sum(b.n for b in honest.bins) == 20000
    top_bold, top_shy = bold.bins[-1], shy.bins[-1]
    assert top_bold.accuracy < top_bold.confidence and top_shy.accuracy > top_shy.confidence


def test_calibration_of_known_pairs() -> None:
    log3 = math.log(3)  # σ = 3/4
    got = calibration(columns([log3, log3, log3, -log3]))
    assert len(got.bins) == 1 and got.ece == pytest.approx(0, abs=1e-12)
    assert calibration(columns([0.0, 0.0])).ece == 0.0
    assert calibration(columns([-40.0])).ece == pytest.approx(1.0)
    with pytest.raises(ValueError, match="no pairs"):
        calibration(columns([]))


def test_length_correlation() -> None:
    rows = reviews(3, 20)
    lengths = [[float(len(answer.split())) for answer in row.answers] for row in rows]
    assert score_length_correlation(rows, lengths) == pytest.approx(1)
    assert score_length_correlation(rows, [[-2 * n + 3 for n in row] for row in lengths]) == pytest.approx(-1)
    assert score_length_correlation(rows, [[1.0] * 3 for _ in rows]) is None
    with pytest.raises(ValueError, match="answers"):
        score_length_correlation(rows, lengths[:-1])


def test_report_of_a_good_model() -> None:
    rows, bag = reviews(4, 80), fit_bag_of_words(reviews(5, 80))
    report = reward_report(rows, [list(row.ratings or ()) for row in rows], bag)
    assert report.accuracy.share == 1.0 and report.clears_length
    assert report.bag_of_words is not None and report.bag_of_words.share > 0.85
    assert 0.3 < report.longer_wins.share < 0.7
    decided = sum(len(row.pairs()) for row in rows)
    assert report.accuracy.n == decided and report.undecided == 80 * 3 - decided and report.undecided > 0
    assert sum(b.accuracy.n for b in report.by_margin) == sum(b.accuracy.n for b in report.by_length) == decided
    plain = json.loads(json.dumps(report.as_dict(), allow_nan=False))
    assert plain["accuracy"]["share"] == 1.0 and plain["clears_length"] is True


def test_a_model_that_reads_only_length_does_not_clear_it() -> None:
    rows = [comparison(str(i), "a b c", "a", ranks=(1, 2) if i % 4 else (2, 1)) for i in range(200)]
    by_length = reward_report(rows, [[3.0, 1.0]] * 200)
    assert by_length.accuracy.share == by_length.longer_wins.share == 0.75
    assert not by_length.clears_length
    short_is_better = [comparison(str(i), "a b c", "a", ranks=(2, 1)) for i in range(200)]
    assert not reward_report(short_is_better, [[1.0, 3.0]] * 200).clears_length


def test_no_decision_is_refused() -> None:
    with pytest.raises(ValueError, match="no decided pair"):
        reward_report([Comparison("t", ASK, ("a", "b"), (1, 1))], [[1.0, 2.0]])
