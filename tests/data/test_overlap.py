"""What training has seen of the held-out rows, and texts that count as the same."""

from __future__ import annotations

from trimtab.data.overlap import RUN, overlap
from trimtab.data.text import content_key, normal
from trimtab.records import Comparison, Demonstration, Message, Prompt


def told(row_id: str, prompt: str, answer: str) -> Demonstration:
    return Demonstration(row_id, (Message("user", prompt), Message("assistant", answer)))


def compared(row_id: str, answers: tuple[str, str], ranks: tuple[int, int]) -> Comparison:
    return Comparison(row_id, Prompt(row_id, (Message("user", "q"),)), answers, ranks)


LONG = " ".join(f"word{i}" for i in range(RUN))
TRAIN = [told("t1", "What is it?", "A film."), told("t2", "Tell me more.", f"well {LONG} so")]


def test_prompts_answers_and_long_runs_are_told_apart() -> None:
    held = [
        told("prompt", "  what is IT?", "new"),
        told("answer", "Which?", "a  film."),
        told("run", "Which one?", f"oh {LONG} then"),
        told("short", "Whose?", " ".join(LONG.split()[1:])),
        told("new", "Where?", "there"),
    ]
    found = overlap(TRAIN, held)
    assert (found.rows, found.prompts, found.answers, found.runs) == (5, 1, 1, 1)
    assert found.first == ("prompt", "answer", "run")
    assert "of 5 held-out rows 1 have a prompt" in found.said()
    assert overlap(TRAIN, held[4:]).said() == "none of 1 held-out rows was seen"


def test_a_prompt_is_known_also_without_its_answer() -> None:
    asked = Prompt("p", (Message("user", "Tell me more."),))
    assert overlap(TRAIN, [asked]).prompts == 1
    assert overlap([asked], TRAIN).prompts == 1


def test_a_run_does_not_span_two_texts() -> None:
    half = LONG.split()
    split = told("split", " ".join(half[:6]), " ".join(half[6:]))
    assert overlap(TRAIN, [split]).runs == 0


def test_normal_texts() -> None:
    assert normal("  Ａ\u00a0film\u2028 \tCAFE\u0301 ") == "a film café"
    assert content_key([told("a", "Q", "x")]) == content_key([told("b", " q ", "X")])
    assert content_key([compared("a", ("x", "y"), (1, 2))]) == content_key([compared("b", ("y", "x"), (2, 1))])
    assert content_key([compared("a", ("x", "y"), (1, 2))]) != content_key([compared("a", ("x", "y"), (2, 1))])
