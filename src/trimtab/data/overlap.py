"""What training rows and held-out rows have in common: whole prompts, whole answers, or a long run of words."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from trimtab.data.split import opening_turns
from trimtab.data.text import Row, answers_of, normal

RUN = 13
"""Words in a row that two texts seldom share by chance (Brown et al. 2020, appendix C)."""


@dataclass(frozen=True)
class Overlap:
    """Held-out rows that training has seen, in a sense each.

    Attributes:
        rows: held-out rows looked at.
        prompts: rows whose prompt (the turns before the first answer) is a training row's.
        answers: rows of which an answer stands word for word in a training row.
        runs: rows that share ``RUN`` words in a row with a training row, and are not counted above.
        first: ids of the first ten rows counted anywhere.
    """

    rows: int
    prompts: int
    answers: int
    runs: int
    first: tuple[str, ...] = ()

    def said(self) -> str:
        """One line for a person."""
        if not (self.prompts or self.answers or self.runs):
            return f"none of {self.rows} held-out rows was seen"
        return (
            f"of {self.rows} held-out rows {self.prompts} have a prompt and {self.answers} an answer of a training "
            f"row, {self.runs} more share {RUN} words in a row; first: {', '.join(self.first)}"
        )


def overlap(train: Sequence[Row], heldout: Sequence[Row]) -> Overlap:
    """Compares normal texts (``text.normal``); memory grows with the held-out rows only, time with both."""
    asked, said = {_prompt(row) for row in train}, {text for row in train for text in _answers(row)}
    runs_of = {row.id: set(_runs(_words(row))) for row in heldout}
    wanted = set().union(*runs_of.values())
    seen = {run for row in train for run in _runs(_words(row)) if run in wanted} if wanted else set()
    prompts = [row.id for row in heldout if _prompt(row) in asked]
    answers = [row.id for row in heldout if said.intersection(_answers(row))]
    whole = {*prompts, *answers}
    runs = [row.id for row in heldout if row.id not in whole and runs_of[row.id] & seen]
    first = tuple(dict.fromkeys((*prompts, *answers, *runs)))[:10]
    return Overlap(len(heldout), len(prompts), len(answers), len(runs), first)


def _prompt(row: Row) -> str:
    return "\n".join(f"{message.role}: {normal(message.content)}" for message in opening_turns(row))


def _answers(row: Row) -> set[str]:
    return {normal(text) for text in answers_of(row)} - {""}


def _words(row: Row) -> Iterable[list[str]]:
    """Words of every text of the row; a run never spans two texts."""
    for message in opening_turns(row):
        yield normal(message.content).split()
    for text in answers_of(row):
        yield normal(text).split()


def _runs(texts: Iterable[list[str]]) -> Iterator[int]:
    """A hash of every run of ``RUN`` words."""
    for words in texts:
        for start in range(len(words) - RUN + 1):
            yield hash(tuple(words[start : start + RUN]))
