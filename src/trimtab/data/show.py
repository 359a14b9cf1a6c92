"""Rows as the model sees them: token by token, and which tokens are learned."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import cast

from trimtab.data.template import Renderer
from trimtab.errors import DataError
from trimtab.records import Comparison, Demonstration, Feedback, Prompt

Marked = list[tuple[str, bool]]
Row = Demonstration | Comparison | Feedback | Prompt


def rendered(renderer: Renderer, record: Row) -> Marked:
    """``(token text, trained)`` of a record's text: the first of its ``views`` (a ranking's best answer).

    Raises:
        DataError: the record has no tokens (a rating), or the template refuses it.
    """
    return views(renderer, record)[0][1]


def views(renderer: Renderer, record: Row) -> list[tuple[str, Marked]]:
    """Every text of a record with a title: one for a demonstration, one per answer of a ranking, best first.

    In a comparison or feedback the marked tokens are the answer's; in a prompt they are those that the model will see
    but did not sample: none is trained.
    """
    return [(title, _marked(renderer, ids, act)) for title, ids, act in _texts(renderer, record)]


def _texts(renderer: Renderer, record: Row) -> Iterator[tuple[str, Sequence[int], Sequence[bool]]]:
    if isinstance(record, Demonstration):
        yield "demonstration", *renderer.demonstration(record)
    elif isinstance(record, Prompt):
        ids = renderer.prompt(record).ids
        yield "prompt", ids, [False] * len(ids)
    elif isinstance(record, Feedback):
        title = "desirable" if record.desirable else "undesirable"
        yield title, *renderer.answer(record.prompt, record.answer)
    elif isinstance(record, Comparison):
        for i in sorted(range(len(record.answers)), key=lambda i: record.ranks[i]):
            yield f"rank {record.ranks[i]}", *renderer.answer(record.prompt, record.answers[i])
    else:
        raise DataError(f"a {type(record).__name__.lower()} is not rendered as tokens")


@dataclass(frozen=True)
class Rendered:
    """What a template makes of many rows.

    Attributes:
        rows: looked at.
        tokens: of all texts of the rows that it takes.
        trained: those of them that are learned, or scored.
        refused: why a row is refused -> the ids refused for it.
    """

    rows: int
    tokens: int
    trained: int
    refused: dict[str, list[str]]


def render_all(renderer: Renderer, records: Sequence[Row]) -> Rendered:
    """Every record through the template; a refusal is counted and does not end it."""
    tokens = trained = 0
    refused: dict[str, list[str]] = {}
    for record in records:
        try:
            texts = list(_texts(renderer, record))
        except DataError as error:
            refused.setdefault(error.problem, []).append(record.id)
            continue
        tokens += sum(len(ids) for _, ids, _ in texts)
        trained += sum(sum(act) for _, _, act in texts)
    return Rendered(len(records), tokens, trained, refused)


def _marked(renderer: Renderer, ids: Sequence[int], act: Sequence[bool]) -> Marked:
    """Token texts that join to the whole text. A character whose bytes lie in several tokens stands with the last."""
    shown: Marked = []
    waiting: list[int] = []
    for i, (token, trained) in enumerate(zip(ids, act, strict=True)):
        waiting.append(token)
        text = cast(str, renderer.tokenizer.decode(waiting, clean_up_tokenization_spaces=False))
        more = i + 1 < len(ids) and act[i + 1] == trained
        if text.endswith("\ufffd") and more:
            continue
        shown.append((text, trained))
        waiting = []
    return shown
