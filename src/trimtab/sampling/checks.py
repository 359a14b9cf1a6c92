"""What a sampler refuses before it computes anything."""

from __future__ import annotations

import math
from collections.abc import Sequence

from trimtab.errors import DataError, RecipeError, Where
from trimtab.protocols import SamplingParams, TokenPrompt


def check_params(params: SamplingParams, samples: int) -> None:
    """Raises:
    RecipeError: a value that no distribution has; its key is named.
    """
    rules = (
        ("samples", samples >= 1, samples, "at least 1"),
        ("max_new_tokens", params.max_new_tokens >= 1, params.max_new_tokens, "at least 1"),
        (
            "temperature",
            0 <= params.temperature < math.inf,
            params.temperature,
            "at least 0 (0 takes the likeliest token)",
        ),
        ("top_p", 0 < params.top_p <= 1, params.top_p, "above 0 and at most 1 (1 is off)"),
        ("top_k", params.top_k >= 0, params.top_k, "at least 0 (0 is off)"),
        ("repetition_penalty", params.repetition_penalty > 0, params.repetition_penalty, "positive (1 is off)"),
        ("stop", all(params.stop), params.stop, "free of empty strings"),
    )
    for key, holds, value, must in rules:
        if not holds:
            raise RecipeError(f"{key} is {value!r}, but must be {must}", where=Where(key=key))


def check_prompts(prompts: Sequence[TokenPrompt], max_new_tokens: int, room: int | None, vocabulary: int) -> None:
    """Raises:
    DataError: an empty prompt, one without room for its answer, a token that the model does not have, or an id used
        twice (a random stream is named by it, so both would get the same answers).
    """
    seen: dict[str, TokenPrompt] = {}
    for prompt in prompts:
        what = f"prompt {prompt.id!r}"
        if not prompt.ids:
            raise DataError(f"{what} has no tokens", fix="a prompt needs at least one: a message, or the start token")
        if prompt.id in seen:
            same = "the same" if seen[prompt.id].ids == prompt.ids else "other"
            raise DataError(
                f"{what} comes twice in one call, with {same} tokens",
                fix="give prompts ids of their own; for several answers to one prompt use samples",
            )
        seen[prompt.id] = prompt
        if not 0 <= prompt.prefill <= len(prompt.ids):
            raise DataError(f"{what} says that {prompt.prefill} of its {len(prompt.ids)} tokens are the prefill")
        if min(prompt.ids) < 0 or max(prompt.ids) >= vocabulary:
            raise DataError(
                f"{what} has token {max(prompt.ids, key=lambda i: i if i >= vocabulary else -i)}, "
                f"but the model has {vocabulary}",
                fix="use the model's own tokenizer",
            )
    if room is None:
        return
    long = [p for p in prompts if len(p.ids) + max_new_tokens > room]
    if long:
        first = ", ".join(f"{p.id!r} ({len(p.ids)} tokens)" for p in long[:3])
        raise DataError(
            f"{len(long)} of {len(prompts)} prompts leave no room for {max_new_tokens} new tokens in {room}: {first}",
            fix=f"leave out prompts of more than {room - max_new_tokens} tokens, or lower max_new_tokens",
        )
