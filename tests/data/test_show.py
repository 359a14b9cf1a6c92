"""Rows as the model sees them."""

from __future__ import annotations

import pytest

from data.tiny import ASK, CHAT, MANY, tokenizer
from trimtab.data.show import rendered, views
from trimtab.data.template import Renderer
from trimtab.errors import DataError
from trimtab.records import Comparison, Feedback, Prompt, Rating

R = Renderer(tokenizer(), CHAT)


def test_token_texts_join_to_the_conversation_and_trained_ones_to_the_answers() -> None:
    shown = rendered(R, MANY)
    assert "".join(text for text, _ in shown) == "".join(f"[{m.role}]{m.content}<end>\n" for m in MANY.messages)
    trained = "".join(text for text, on in shown if on)
    assert trained == "Good, the café is open.<end>The wine is good too.<end>"
    assert ("é", True) in shown, "two bytes in two tokens are shown as one character"
    assert (" the", True) in shown, "a token is shown as it is"


def test_a_prompt_shows_its_prefill_untrained() -> None:
    shown = rendered(R, Prompt("p", ASK.messages, prefill="The food", prefill_tokens=5))
    assert "".join(text for text, _ in shown).endswith("[assistant]The f")
    assert not any(on for _, on in shown)


def test_a_ranking_shows_every_answer_best_first() -> None:
    row = Comparison("c", ASK, ("bad", "best", "fair"), (3, 1, 2))
    titles = [(title, "".join(text for text, on in marked if on)) for title, marked in views(R, row)]
    assert titles == [("rank 1", "best<end>"), ("rank 2", "fair<end>"), ("rank 3", "bad<end>")]
    assert rendered(R, row) == views(R, row)[0][1]


def test_feedback_says_what_it_is() -> None:
    ((title, marked),) = views(R, Feedback("f", ASK, "no", desirable=False))
    assert title == "undesirable"
    assert "".join(text for text, on in marked if on) == "no<end>"


def test_a_character_cut_by_the_prefill_does_not_swallow_the_rest() -> None:
    shown = rendered(R, Prompt("p", ASK.messages, prefill="é!", prefill_tokens=1))
    assert shown[-1] == ("\ufffd", False), "half a character is what the model sees"


def test_a_rating_has_no_tokens() -> None:
    with pytest.raises(DataError, match="rating"):
        rendered(R, Rating("r", "text", 1.0, 0.5, 15))  # type: ignore[arg-type]
