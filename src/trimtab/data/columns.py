"""From a row's columns to a record. A new row format is one function and one line in ``SHAPES``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from trimtab.data.config import Kind
from trimtab.data.files import Raw
from trimtab.data.turns import BadValue, Note, answer_of, completion_of, messages_of, prompt_of, shared_prompt, text_of
from trimtab.errors import DataError, Where
from trimtab.records import Comparison, Demonstration, Feedback, Message, Prompt
from trimtab.schema import did_you_mean

Record = Demonstration | Comparison | Feedback | Prompt
Build = Callable[[str, Mapping[str, Any], Mapping[str, Any], Note], Record]
"""``(id, values of the shape's columns, the other columns, note) -> record``; raises ``BadValue``."""


@dataclass(frozen=True)
class Shape:
    """One way to write rows of a kind.

    Attributes:
        kind: what the rows become.
        needs: columns that make it this shape.
        may: further columns that it reads.
        build: the function that reads them.
        said: what the announcement calls it.
        keeps: the remaining columns go to the prompt's ``columns``.
    """

    kind: Kind
    needs: tuple[str, ...]
    build: Build
    said: str
    may: tuple[str, ...] = ()
    keeps: bool = True
    explicit: bool = False
    """Only if ``kind`` is given: the same columns mean something else on their own."""


def _messages(row_id: str, row: Mapping[str, Any], _: Mapping[str, Any], note: Note) -> Record:
    messages = messages_of("messages", row["messages"], note)
    if messages[-1].role != "assistant":
        raise BadValue("messages", f"the last turn is the {messages[-1].role}'s", "end with the answer to be learned")
    return Demonstration(row_id, messages)


def _prompt_completion(row_id: str, row: Mapping[str, Any], _: Mapping[str, Any], note: Note) -> Record:
    prompt = prompt_of("prompt", row["prompt"], note)
    completion = completion_of("completion", row["completion"], prompt, note)
    if completion[-1].role != "assistant":
        raise BadValue("completion", "its last turn is not the assistant's", "end with the answer to be learned")
    if any(message.role == "assistant" for message in prompt):
        note("rows whose prompt has assistant turns, which are learned as well")
    return Demonstration(row_id, prompt + completion)


def _pair(row_id: str, row: Mapping[str, Any], rest: Mapping[str, Any], note: Note) -> Record:
    messages = prompt_of("prompt", row["prompt"], note)
    answers = tuple(answer_of(key, row[key], messages, note) for key in ("chosen", "rejected"))
    return _compared(row_id, messages, answers, (1, 2), row, rest)


def _implicit(row_id: str, row: Mapping[str, Any], rest: Mapping[str, Any], note: Note) -> Record:
    messages, good, bad = shared_prompt("chosen", row["chosen"], "rejected", row["rejected"], note)
    return _compared(row_id, messages, (good, bad), (1, 2), row, rest)


def _ranked(row_id: str, row: Mapping[str, Any], rest: Mapping[str, Any], note: Note) -> Record:
    messages = prompt_of("prompt", row["prompt"], note)
    given, ranks = row["answers"], row["ranks"]
    if not isinstance(given, list) or len(given) < 2:
        raise BadValue("answers", "expected a list of at least two answers", 'write ["...", "..."]')
    answers = tuple(answer_of(f"answers[{i}]", answer, messages, note) for i, answer in enumerate(given))
    if not isinstance(ranks, list) or len(ranks) != len(answers):
        raise BadValue("ranks", f"expected {len(answers)} ranks", "one whole number per answer, 1 = best, equal = tied")
    numbers = tuple(_whole(f"ranks[{i}]", rank) for i, rank in enumerate(ranks))
    if len(set(numbers)) == 1:
        note("rankings in which every answer is tied")
    return _compared(row_id, messages, answers, numbers, row, rest)


def _compared(
    row_id: str,
    messages: tuple[Message, ...],
    answers: tuple[str, ...],
    ranks: tuple[int, ...],
    row: Mapping[str, Any],
    rest: Mapping[str, Any],
) -> Comparison:
    ranked: dict[str, int] = {}
    for answer, rank in zip(answers, ranks, strict=True):
        if ranked.setdefault(answer, rank) != rank:
            problem = "the same answer stands at two ranks (identical chosen and rejected)"
            raise BadValue("answers", problem, "leave the row out")
    ratings, margin = row.get("ratings"), row.get("margin")
    if ratings is not None:
        if not isinstance(ratings, list) or len(ratings) != len(answers):
            raise BadValue("ratings", f"expected {len(answers)} numbers", "one rating per answer, larger = better")
        ratings = tuple(_number(f"ratings[{i}]", rating) for i, rating in enumerate(ratings))
    return Comparison(
        id=row_id,
        prompt=Prompt(id=row_id, messages=messages, columns=rest),
        answers=answers,
        ranks=ranks,
        ratings=ratings,
        margin=None if margin is None else _number("margin", margin),
        annotator=_annotator(row),
    )


def _feedback(row_id: str, row: Mapping[str, Any], rest: Mapping[str, Any], note: Note) -> Record:
    messages = prompt_of("prompt", row["prompt"], note)
    answer = answer_of("completion", row["completion"], messages, note)
    prompt = Prompt(row_id, messages, columns=rest)
    return Feedback(row_id, prompt, answer, _yes("label", row["label"]), _annotator(row))


def _judged_messages(row_id: str, row: Mapping[str, Any], rest: Mapping[str, Any], note: Note) -> Record:
    *before, last = messages_of("messages", row["messages"], note)
    if last.role != "assistant" or not before or before[-1].role not in ("user", "tool"):
        raise BadValue("messages", "no answer to judge at its end", "end with the prompt and the answer judged")
    label = _yes("label", row["label"])
    return Feedback(row_id, Prompt(row_id, tuple(before), columns=rest), last.content, label, _annotator(row))


def _prompt(row_id: str, row: Mapping[str, Any], rest: Mapping[str, Any], note: Note) -> Record:
    messages = prompt_of("prompt", row["prompt"], note)
    prefill = "" if row.get("prefill") is None else text_of("prefill", row["prefill"], empty=True)
    tokens = row.get("prefill_tokens")
    tokens = None if tokens is None else _whole("prefill_tokens", tokens)
    if tokens is not None and (tokens < 0 or not prefill):
        raise BadValue("prefill_tokens", "needs a prefill, of which it keeps that many tokens", "give both or neither")
    return Prompt(row_id, messages, prefill, tokens, rest)


def _prompt_messages(row_id: str, row: Mapping[str, Any], rest: Mapping[str, Any], note: Note) -> Record:
    return Prompt(row_id, prompt_of("messages", row["messages"], note), columns=rest)


_PROMPT, _JUDGED = ("prompt",), ("margin", "annotator")
SHAPES: tuple[Shape, ...] = (
    Shape("comparisons", ("prompt", "answers", "ranks"), _ranked, "ranked answers", ("ratings", *_JUDGED)),
    Shape("comparisons", ("prompt", "chosen", "rejected"), _pair, "preference pairs", _JUDGED),
    Shape("comparisons", ("chosen", "rejected"), _implicit, "preference pairs with the prompt inside both", _JUDGED),
    Shape("feedback", ("prompt", "completion", "label"), _feedback, "answers judged alone", ("annotator",)),
    Shape("feedback", ("messages", "label"), _judged_messages, "conversations judged by their end", ("annotator",)),
    Shape("demonstrations", ("messages",), _messages, "conversations", keeps=False),
    Shape("demonstrations", ("prompt", "completion"), _prompt_completion, "prompts with answers", keeps=False),
    Shape("prompts", _PROMPT, _prompt, "prompts", ("prefill", "prefill_tokens")),
    Shape("prompts", ("messages",), _prompt_messages, "conversations that wait for an answer", explicit=True),
)
"""Tried from the top: the first whose columns are all there."""


def detect(names: Sequence[str], kind: Kind | None) -> Shape:
    """The shape of rows with these columns.

    Raises:
        DataError: no shape has them; it says what each would need.
    """
    candidates = [s for s in SHAPES if (s.kind == kind if kind else not s.explicit)]
    for shape in candidates:
        if set(shape.needs) <= set(names):
            return shape
    wanted = "; ".join(f"{s.kind}: {', '.join(s.needs)}" for s in candidates) or "no file format holds this kind"
    raise DataError(
        f"cannot tell what the columns {', '.join(names) or '(none)'} mean" + (f" as {kind}" if kind else ""),
        fix=f"map them with columns: {{ours: theirs}}. Needed are {wanted}",
    )


def rename(raw: Raw, columns: Mapping[str, str]) -> dict[str, Any]:
    """A row's values under our names. A column that is renamed away from its own name keeps it only if free."""
    theirs = {theirs: ours for ours, theirs in columns.items()}
    renamed = {name: value for name, value in raw.values.items() if name not in theirs and name not in columns}
    return renamed | {theirs[name]: value for name, value in raw.values.items() if name in theirs}


def check_mapping(columns: Mapping[str, str], names: Sequence[str]) -> None:
    """Every mapped column exists, and maps to a name that some shape reads.

    Raises:
        DataError: one does not.
    """
    ours = sorted({"id"} | {name for s in SHAPES for name in (*s.needs, *s.may)})
    for our, their in columns.items():
        if our not in ours:
            where = Where(key=f"columns.{our}")
            raise DataError(f"no row format has a column '{our}'", where=where, fix=did_you_mean(our, ours))
        if their not in names:
            fix = did_you_mean(their, names)
            raise DataError(f"the file has no column '{their}'", where=Where(key=f"columns.{our}"), fix=fix)


def build(shape: Shape, row_id: str, values: Mapping[str, Any], note: Note) -> Record:
    """One record.

    Raises:
        BadValue: a column is missing or its value means nothing.
    """
    for name in shape.needs:
        if name not in values:
            raise BadValue(name, f"the column '{name}' is missing", "add it, or leave the row out")
    read = {"id", *shape.needs, *shape.may}
    rest = {name: value for name, value in values.items() if name not in read} if shape.keeps else {}
    return shape.build(row_id, values, rest, note)


def _annotator(row: Mapping[str, Any]) -> str:
    return "" if row.get("annotator") is None else text_of("annotator", row["annotator"], empty=True)


def _whole(key: str, value: Any) -> int:
    if isinstance(value, str) and value.strip().lstrip("-").isdigit():
        return int(value)  # a CSV cell
    if isinstance(value, bool) or not isinstance(value, int | float) or value != int(value):
        raise BadValue(key, f"expected a whole number, got {value!r}", "write a whole number")
    return int(value)


def _number(key: str, value: Any) -> float:
    try:
        number = float("nan") if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        number = float("nan")
    if number != number or number in (float("inf"), float("-inf")):
        raise BadValue(key, f"expected a number, got {value!r}", "write a finite number")
    return number


def _yes(key: str, value: Any) -> bool:
    known = {True: True, False: False, "true": True, "false": False, "1": True, "0": False}
    word = value.strip().lower() if isinstance(value, str) else value
    if not isinstance(word, bool | int | str) or word not in known:
        raise BadValue(key, f"expected true or false, got {value!r}", "write true (desirable) or false")
    return known[word]
