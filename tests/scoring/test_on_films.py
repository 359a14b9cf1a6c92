"""What the instruments are worth on real ratings that neither they nor the reward model were fitted on."""

from __future__ import annotations

import numpy as np
import pytest

from trimtab.data.config import DataConfig
from trimtab.data.load import load
from trimtab.protocols import ToScore
from trimtab.runtime.fetch import FetchError
from trimtab.scoring.ridge import RidgeScorer
from trimtab.scoring.vader import VaderScorer


@pytest.mark.slow
def test_both_instruments_agree_with_people_and_length_does_not() -> None:
    try:
        films = load("films", DataConfig("vader-films"), 0)
    except FetchError as error:
        pytest.skip(f"no package index: {error.problem}")
    train, held = films.rows("ratings"), films.rows("ratings", "heldout")
    ridge = RidgeScorer.fit([row.text for row in train], [row.mean for row in train])
    vader = VaderScorer().score([ToScore(row.id, (), row.text) for row in held])
    score = {
        "ridge": dict(zip([row.text for row in held], ridge.predict([row.text for row in held]), strict=True)),
        "vader": dict(zip([row.text for row in held], np.array(vader, dtype=float), strict=True)),
        "longer": {row.text: len(row.text) for row in held},
    }
    human = [row.mean for row in held]
    correlation = {name: np.corrcoef([s[row.text] for row in held], human)[0, 1] for name, s in score.items()}
    assert 0.60 < correlation["ridge"] < 0.75
    assert 0.35 < correlation["vader"] < 0.55
    pairs = [(row.answers[a], row.answers[b]) for row in films.rows("comparisons", "heldout") for a, b in row.pairs()]
    accuracy = {name: np.mean([(s[a] > s[b]) + 0.5 * (s[a] == s[b]) for a, b in pairs]) for name, s in score.items()}
    assert 0.77 < accuracy["ridge"] < 0.87
    assert 0.62 < accuracy["vader"] < 0.75
    assert 0.44 < accuracy["longer"] < 0.56
