"""VADER's compound score: a rule-based sentiment instrument in -1..1 (Hutto and Gilbert, ICWSM 2014)."""

from __future__ import annotations

from collections.abc import Sequence

from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

from trimtab.protocols import ToScore


class VaderScorer:
    """Scores the answer's text alone. It reads no prompt and learns nothing, so it can judge what training did."""

    name = "vader"

    def __init__(self) -> None:
        self._analyzer = SentimentIntensityAnalyzer()

    def score(self, items: Sequence[ToScore]) -> list[float | None]:
        """Compound scores; a text without a known word is neutral (0.0 by VADER's own rule), never unscored."""
        return [float(self._analyzer.polarity_scores(item.answer)["compound"]) for item in items]
