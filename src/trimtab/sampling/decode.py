"""One step of many texts at once: which hidden state follows each, with a key/value cache or without.

What decides a text's numbers is the text alone, on one machine with one number of slots: its prefix is computed by
itself, every later product has the shape of all slots, whoever fills them, and its attention sees its own places only.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence as Seq
from dataclasses import dataclass, field
from typing import Protocol, cast

import torch
from torch import Tensor
from transformers import PreTrainedModel

from trimtab.batch import FlatBatch, Sequence, flatten
from trimtab.errors import ModelError
from trimtab.models.attention import KVCache, Prefix
from trimtab.models.flat import Body

_FORCED = 16
"""Longest prefill that is fed token by token, so that prompts with one conversation share its keys and values."""


@dataclass
class Text:
    """A text that grows: its ids so far, and how many of them a decoder has taken in.

    ``shared`` of a prompt's tokens are computed as its prefix, a number that depends on the prompt alone. At least one
    token is left for the decode steps, from the last of which the first sampled token is read.
    """

    ids: list[int]
    prefill: int = 0
    shared: int = field(init=False)
    fed: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        self.shared = len(self.ids) - (self.prefill if 1 <= self.prefill <= _FORCED else 1)

    @property
    def ready(self) -> bool:
        """True if the last step gave the state that predicts the next token."""
        return self.fed == len(self.ids)


class Decoder(Protocol):
    """Texts live in slots; a step feeds each at least one token."""

    def enter(self, slot: int, text: Text) -> None:
        """Begin a text in a slot that is free."""
        ...

    def step(self, texts: Seq[Text | None]) -> Tensor:
        """Feed every text; hidden states [S, D], of which those of texts that are now ``ready`` mean something."""
        ...


class CachedDecoder:
    """The cached decode step: one token per slot, free slots computed and ignored.

    Args:
        body: the decoder, in mode ``flat``.
        slots: number of slots.
        capacity: tokens of the longest text; it changes no number.
        coming: prompts that will enter, so that a prefix is kept as long as somebody needs it and no longer.
    """

    def __init__(self, body: Body, slots: int, capacity: int, coming: Seq[Text]) -> None:
        self.body, self.slots = body, slots
        self.cache = KVCache(slots, capacity)
        self.device = next(body.parameters()).device
        self._layers = cast(int, body.decoder.config.num_hidden_layers)
        self._wanted = Counter(tuple(text.ids[: text.shared]) for text in coming)
        self._prefixes: dict[tuple[int, ...], Prefix] = {}
        self._one = flatten([Sequence([0], [False])] * slots).to(self.device)

    def enter(self, slot: int, text: Text) -> None:
        ids = tuple(text.ids[: text.shared])
        text.fed = len(ids)
        if ids:
            self.cache.enter(self._prefix(ids), slot)

    def _prefix(self, ids: tuple[int, ...]) -> Prefix:
        """Keys and values of a prefix, computed alone and once."""
        prefix = self._prefixes.get(ids)
        if prefix is None:
            prefix = self._prefixes[ids] = self.cache.filling = Prefix()
            try:
                self.body(_flat_text(ids, self.device), cache=self.cache)
            finally:
                self.cache.filling = None
        self._wanted[ids] -= 1
        if self._wanted[ids] <= 0:
            del self._prefixes[ids]
        return prefix

    def step(self, texts: Seq[Text | None]) -> Tensor:
        lengths = [text.fed if text else 0 for text in texts]
        self.cache.at(lengths, self.device)
        batch = self._one
        batch.ids_T = torch.tensor([text.ids[text.fed] if text else 0 for text in texts], device=self.device)
        batch.position_T = self.cache.length_S
        hidden_SD = self.body(batch, cache=self.cache)
        if len(self.cache.layers) != self._layers:
            raise ModelError(
                f"{type(self.body.decoder).__name__} kept keys and values of {len(self.cache.layers)} of its "
                f"{self._layers} layers",
                fix="set its attention with models.flat.set_mode before sampling",
            )
        for text in texts:
            if text:
                text.fed += 1
        return hidden_SD


class RecomputingDecoder:
    """The slow way: every text is computed from its start, alone, at every step."""

    def __init__(self, body: Body, slots: int) -> None:
        self.body, self.slots = body, slots
        self.device = next(body.parameters()).device

    def enter(self, slot: int, text: Text) -> None:
        text.fed = 0

    def step(self, texts: Seq[Text | None]) -> Tensor:
        rows: dict[int, Tensor] = {}
        for slot, text in enumerate(texts):
            if text:
                rows[slot] = self.body(_flat_text(text.ids, self.device))[-1]
                text.fed = len(text.ids)
        first = next(iter(rows.values()))
        hidden_SD = first.new_zeros(self.slots, first.shape[-1])  # the vocabulary too is met in one shape
        for slot, row in rows.items():
            hidden_SD[slot] = row
        return hidden_SD


def _flat_text(ids: Seq[int], device: torch.device) -> FlatBatch:
    return flatten([Sequence(ids, [False] * len(ids))]).to(device)


@torch.no_grad()
def parity(lm: PreTrainedModel, body: Body, slots: int) -> tuple[float, bool]:
    """How cached decoding compares with the flat forward, on a short text in every slot.

    Returns:
        (gap, same): largest difference of a hidden state's number, relative to the largest number; and whether all
        slots gave the same bits.
    """
    window = getattr(lm.config, "sliding_window", None) or 0
    length = 6 + (window if window <= 512 else 0)
    ids = [(31 + 17 * i) % cast(int, lm.config.vocab_size) for i in range(length)]
    texts = [Text(list(ids), prefill=2) for _ in range(slots)]
    decoder = CachedDecoder(body, slots, length, texts)
    for slot, text in enumerate(texts):
        decoder.enter(slot, text)
    decoder.step(texts)
    hidden_SD = decoder.step(texts).float()
    truth_D = body(_flat_text(ids, decoder.device))[-1].float()
    gap = float((hidden_SD[0] - truth_D).abs().max() / truth_D.abs().max())
    return gap, bool((hidden_SD == hidden_SD[0]).all())
