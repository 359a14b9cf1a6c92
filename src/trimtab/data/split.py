"""Which side of a dataset a row is on: decided by its prompt alone, so a prompt is never on both."""

from __future__ import annotations

import json

from trimtab.data.keyed import keyed_share
from trimtab.data.text import normal, turns_key
from trimtab.records import Comparison, Demonstration, Feedback, Message, Prompt

SPLITS = ("train", "heldout")


def opening_turns(record: Demonstration | Comparison | Feedback | Prompt) -> tuple[Message, ...]:
    """The turns before the first assistant turn: what conversations, comparisons and prompts may have in common."""
    messages = record.messages if isinstance(record, Demonstration | Prompt) else record.prompt.messages
    first = next((i for i, message in enumerate(messages) if message.role == "assistant"), len(messages))
    return messages[:first]


def prompt_key(record: Demonstration | Comparison | Feedback | Prompt) -> str:
    """The opening turns as one string; with a prompt's prefill, since a fixed user turn may open every row.

    Without regard to case and white space: a prompt that differs in a space only must not be on both sides.
    """
    prefill = normal(record.prefill) if isinstance(record, Prompt) else ""
    return json.dumps([turns_key(opening_turns(record)), prefill], ensure_ascii=False)


def is_held_out(key: str, seed: int, share: float) -> bool:
    """True for about this share of keys. It depends on the key and the seed only: more rows move none."""
    return keyed_share("heldout", seed, key) < share
