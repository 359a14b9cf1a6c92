"""Scorers by the name that a recipe uses. A scorer is one file and one line here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from trimtab.errors import RecipeError
from trimtab.protocols import Scorer
from trimtab.scoring.vader import VaderScorer

SCORERS: dict[str, Callable[[], Scorer]] = {"vader": VaderScorer}


def scorer(name: str, given: Mapping[str, Scorer] = MappingProxyType({})) -> Scorer:
    """A ready scorer: one of ``given`` (those that were handed to the run from Python), or of ours.

    Raises:
        RecipeError: there is none of this name.
    """
    if name in given:
        return given[name]
    if name not in SCORERS:
        raise RecipeError(f"there is no scorer {name!r}", fix=f"use one of: {', '.join(sorted(SCORERS))}")
    return SCORERS[name]()
