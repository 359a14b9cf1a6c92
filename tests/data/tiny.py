"""A tokenizer small enough to read: one token per byte, a few merges, and whatever special tokens a test wants."""

from __future__ import annotations

from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from trimtab.records import Demonstration, Message, Prompt

MERGES = [("Ċ", "Ċ"), ("Ġ", "t"), ("Ġt", "h"), ("Ġth", "e"), ("o", "o"), ("oo", "d")]
"""Two newlines, `` the`` and ``ood`` are single tokens (Ċ is a newline's byte, Ġ a space's)."""


def tokenizer(
    *,
    bos: str | None = "<s>",
    eos: str = "<end>",
    pad: str | None = None,
    unk: str | None = None,
    more: tuple[str, ...] = (),
    merges: list[tuple[str, str]] = MERGES,
) -> PreTrainedTokenizerFast:
    """Special tokens have the first ids, in the order pad, unk, bos, eos, ``more``."""
    special = list(dict.fromkeys(t for t in (pad, unk, bos, eos, *more) if t))
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {t: i for i, t in enumerate([*special, *letters, *("".join(m) for m in merges)])}
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token=bos,
        eos_token=eos,
        pad_token=pad,
        unk_token=unk,
        extra_special_tokens=list(more),
    )


CHAT = (
    "{% for m in messages %}{{ '[' + m['role'] + ']' }}{{ m['content'] + eos_token }}{{ '\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '[assistant]' }}{% endif %}"
)
"""No generation block; a newline after every end token."""

CHAT_MARKED = (
    "{% for m in messages %}{{ '[' + m['role'] + ']' }}"
    "{% if m['role'] == 'assistant' %}{% generation %}{{ m['content'] + eos_token }}{% endgeneration %}{{ '\\n' }}"
    "{% else %}{{ m['content'] + eos_token + '\\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '[assistant]' }}{% endif %}"
)
"""The same text, with the answers marked."""

CHAT_MARKED_NEWLINE = CHAT_MARKED.replace("{% endgeneration %}{{ '\\n' }}", "{{ '\\n' }}{% endgeneration %}")
"""Marks the newline after the end token too."""

CHAT_MARKED_BARE = CHAT_MARKED.replace(
    "{{ m['content'] + eos_token }}{% endgeneration %}", "{{ m['content'] }}{% endgeneration %}{{ eos_token }}"
)
"""Leaves the end token out of the mark."""

MANY = Demonstration(
    "many",
    (
        Message("system", "Be kind."),
        Message("user", "How is the food?"),
        Message("assistant", "Good, the café is open."),
        Message("user", "And the wine?"),
        Message("assistant", "The wine is good too."),
    ),
)
ASK = Prompt("ask", (Message("user", "How is the food?"),))


def pieces(tok: PreTrainedTokenizerFast, ids: list[int], act: list[bool]) -> list[str]:
    """Texts of the stretches of trained tokens."""
    found: list[list[int]] = []
    for i, (token, on) in enumerate(zip(ids, act, strict=True)):
        if on and (i == 0 or not act[i - 1]):
            found.append([])
        if on:
            found[-1].append(token)
    return [str(tok.decode(part)) for part in found]
