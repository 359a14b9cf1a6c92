from __future__ import annotations

import numpy as np
import pytest

from trimtab.evaluation.proportion import proportion, wilson


def test_wilson_at_published_values() -> None:
    assert wilson(0.8, 10) == pytest.approx((0.4902, 0.9433), abs=1e-4)
    assert wilson(0.0, 10) == pytest.approx((0.0, 0.2775), abs=1e-4)
    assert wilson(1.0, 10) == pytest.approx((0.7225, 1.0), abs=1e-4)


def test_independent_items_count_fully() -> None:
    hits = [1.0, 1.0, 0.0, 1.0, 0.5]
    alone = proportion(hits)
    assert (alone.share, alone.n, alone.effective) == (0.7, 5, 5.0)
    assert (alone.low, alone.high) == wilson(0.7, 5)
    binary = proportion([1, 0, 1, 1], clusters=[7, 3, 9, 1])
    assert binary.effective == pytest.approx(4)


def test_copies_within_a_cluster_add_nothing() -> None:
    hits = [1.0, 0.0, 1.0, 1.0, 0.0, 1.0]
    single = proportion(hits)
    copied = proportion(hits * 5, clusters=list(range(6)) * 5)
    assert copied.n == 30 and copied.effective == pytest.approx(6)
    assert (copied.low, copied.high) == pytest.approx((single.low, single.high))
    assert proportion(hits * 5).high < copied.high


def test_clusters_that_cancel_out_do_not_count_more_than_their_items() -> None:
    assert proportion([1, 0, 1, 0], clusters=[0, 0, 1, 1]).effective == 4
    assert proportion([1, 0, 1, 0, 1, 1], clusters=[0, 0, 1, 1, 2, 2]).effective == 6


def test_unanimity_counts_clusters() -> None:
    assert proportion([1.0] * 12, clusters=[0, 1, 2] * 4).effective == 3


def test_covers_the_truth_with_dependent_pairs_where_plain_wilson_does_not() -> None:
    rng = np.random.default_rng(0)
    truth, groups, each, trials = 0.7, 80, 6, 300
    clustered = plain = 0
    for _ in range(trials):
        chance = rng.beta(0.7, 0.3, size=groups)  # strongly dependent within a group, mean 0.7
        hits = (rng.random((groups, each)) < chance[:, None]).astype(float).ravel().tolist()
        got = proportion(hits, np.repeat(np.arange(groups), each).tolist())
        clustered += got.low <= truth <= got.high
        low, high = wilson(got.share, got.n)
        plain += low <= truth <= high
    assert clustered / trials > 0.91
    assert plain / trials < 0.85


def test_refusals() -> None:
    with pytest.raises(ValueError, match="0 items"):
        proportion([])
    with pytest.raises(ValueError, match="1 cluster"):
        proportion([1.0, 0.0], clusters=[0])
    with pytest.raises(ValueError, match=r"share of 1.5"):
        wilson(1.5, 3)
