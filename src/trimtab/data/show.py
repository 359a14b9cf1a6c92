"""Rows as the model sees them: token by token, and which tokens are learned."""

from __future__ import annotations

from collections.abc import Sequence
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
    if isinstance(record, Demonstration):
        return [("demonstration", _marked(renderer, *renderer.demonstration(record)))]
    if isinstance(record, Prompt):
        ids = renderer.prompt(record).ids
        return [("prompt", _marked(renderer, ids, [False] * len(ids)))]
    if isinstance(record, Feedback):
        title = "desirable" if record.desirable else "undesirable"
        return [(title, _marked(renderer, *renderer.answer(record.prompt, record.answer)))]
    if isinstance(record, Comparison):
        best_first = sorted(range(len(record.answers)), key=lambda i: record.ranks[i])
        return [
            (f"rank {record.ranks[i]}", _marked(renderer, *renderer.answer(record.prompt, record.answers[i])))
            for i in best_first
        ]
    raise DataError(f"a {type(record).__name__.lower()} is not rendered as tokens")


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
