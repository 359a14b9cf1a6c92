"""VADER as a scorer."""

from __future__ import annotations

from trimtab.protocols import Scorer, ToScore
from trimtab.scoring.vader import VaderScorer


def test_scores_are_compound_and_read_the_answer_alone() -> None:
    scorer: Scorer = VaderScorer()
    ask = ({"role": "user", "content": "Horrible, terrible, awful."},)
    good, very, bad, none = scorer.score(
        [ToScore(str(i), ask, text) for i, text in enumerate(["A good film.", "A VERY good film!!", "A bad film.", ""])]
    )
    assert good is not None and very is not None and bad is not None
    assert -1 <= bad < 0 < good < very <= 1
    assert good == 0.4404, "the lexicon's 1.9 for 'good': 1.9 / sqrt(1.9² + 15)"
    assert none == 0.0
    assert scorer.name == "vader"
