"""Attention over a flat batch, registered with transformers under ``IMPLEMENTATION``.

One axis of tokens, ``cu_seq_lens_q`` saying where each text starts (transformers' own names, so FlashAttention's varlen
kernels fit the same call). Each text is attended alone, causally: a loop of ``scaled_dot_product_attention``.
With a ``kv_cache`` the call is one decode step instead: every token is the newest of its own slot.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AttentionInterface

from trimtab.errors import ModelError

IMPLEMENTATION = "trimtab_flat"
BLOCK = 32
"""Cached places that a decode step takes at a time."""


class Prefix:
    """Keys and values of one text's first tokens, by layer: ``[H_kv, L, d]``. Several texts may start from one."""

    def __init__(self) -> None:
        self.layers: dict[int, tuple[Tensor, Tensor]] = {}


class KVCache:
    """Keys and values of ``slots`` texts of at most ``capacity`` tokens, for every layer.

    Before a decode step ``at`` says how many tokens each slot holds; the step writes each slot's newest key and value
    there. Free slots count as empty texts: they are computed and ignored, so the shape of every product is fixed.
    """

    def __init__(self, slots: int, capacity: int) -> None:
        self.slots = slots
        self.capacity = -(-capacity // BLOCK) * BLOCK
        self.layers: dict[int, tuple[Tensor, Tensor]] = {}
        self.filling: Prefix | None = None
        """What a prefill writes to; None during decode steps."""
        self.length_S = torch.zeros(slots, dtype=torch.long)
        self.reach = BLOCK
        """Places a decode step looks at: whole blocks, up to the longest text's newest token."""
        self._slot_S = torch.arange(slots)
        self._bias: dict[int | None, Tensor] = {}

    def at(self, lengths: Sequence[int], device: torch.device) -> None:
        """Set the number of tokens that each slot holds, for the decode step that follows."""
        if max(lengths) >= self.capacity:
            raise ValueError(f"a slot holds {max(lengths)} tokens, the cache {self.capacity}: no room for one more")
        self.reach = (max(lengths) // BLOCK + 1) * BLOCK
        self.length_S = torch.tensor(lengths, device=device)
        self._slot_S = torch.arange(self.slots, device=device)
        self._bias = {}

    def bias(self, window: int | None) -> Tensor:
        """float32 [S, 1, 1, reach]: 0 where a slot's newest token looks, -inf elsewhere; made once per step."""
        if window not in self._bias:
            ago = self.length_S[:, None] - torch.arange(self.reach, device=self.length_S.device)
            seen = (ago >= 0) if window is None else (ago >= 0) & (ago < window)
            zeros = torch.zeros(seen.shape, device=seen.device)
            self._bias[window] = zeros.masked_fill_(~seen, -math.inf)[:, None, None]
        return self._bias[window]

    def prefill(self, index: int, key: Tensor, value: Tensor) -> None:
        """Keep the keys and values ([1, H_kv, L, d]) of one whole text in ``filling``."""
        if self.filling is None:
            raise ValueError("no prefix is being filled")
        self.filling.layers[index] = (key[0], value[0])

    def enter(self, prefix: Prefix, slot: int) -> None:
        """Let a slot's text begin with a prefix."""
        for index, (key, value) in prefix.layers.items():
            keys, values = self._layer(index, key, value)
            keys[slot, :, : key.shape[1]] = key
            values[slot, :, : value.shape[1]] = value

    def append(self, index: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Write one key and value per slot ([1, H_kv, S, d]) at ``length_S``; returns all up to ``reach``."""
        keys, values = self._layer(index, key[0], value[0])
        keys[self._slot_S, :, self.length_S] = key[0].transpose(0, 1)
        values[self._slot_S, :, self.length_S] = value[0].transpose(0, 1)
        return keys[:, :, : self.reach], values[:, :, : self.reach]

    def _layer(self, index: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        if index not in self.layers:  # zeros: what no text has written is multiplied by 0, so it must be finite
            self.layers[index] = (
                key.new_zeros(self.slots, key.shape[0], self.capacity, key.shape[-1]),
                value.new_zeros(self.slots, value.shape[0], self.capacity, value.shape[-1]),
            )
        return self.layers[index]


def _one_text(
    query: Tensor, key: Tensor, value: Tensor, scaling: float, window: int | None, softcap: float | None
) -> Tensor:
    """Causal attention within one text: query [1, H, L, d], key and value [1, H_kv, L, d] -> [1, H, L, d]."""
    length = query.shape[2]
    mask = None
    if window is not None and length > window:
        at = torch.arange(length, device=query.device)
        mask = (at[:, None] >= at[None, :]) & (at[:, None] - at[None, :] < window)
    if softcap is None:
        return F.scaled_dot_product_attention(
            query, key, value, attn_mask=mask, is_causal=mask is None, scale=scaling, enable_gqa=True
        )
    groups = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    scores = softcap * torch.tanh(query @ key.transpose(-1, -2) * (scaling / softcap))
    mask = torch.ones(length, length, dtype=torch.bool, device=query.device).tril() if mask is None else mask
    weights = torch.softmax(scores.float().masked_fill(~mask, -math.inf), -1).to(value.dtype)
    return weights @ value


def _decode(query: Tensor, keys: Tensor, values: Tensor, bias: Tensor, scaling: float, softcap: float | None) -> Tensor:
    """One query per slot against its cached keys: query [1, H, S, d], keys [S, H_kv, reach, d] -> [1, H, S, d].

    Keys are taken a block at a time, in float32: every product has one fixed shape, and a block beyond a slot's text
    adds exact zeros. So a slot's numbers depend neither on the other slots nor on the room in the cache, which a call
    of ``scaled_dot_product_attention`` over all places does not promise. On two CPU cores it costs as much.
    """
    slots, heads_kv, reach, width = keys.shape
    query_nGd = query[0].transpose(0, 1).reshape(slots * heads_kv, -1, width).float() * scaling
    blocks = range(0, reach, BLOCK)
    score_nGR = torch.cat([torch.bmm(query_nGd, _block(keys, at).transpose(1, 2)) for at in blocks], -1)
    if softcap is not None:
        score_nGR = softcap * torch.tanh(score_nGR / softcap)
    score_SHGR = score_nGR.view(slots, heads_kv, -1, reach) + bias
    weight_nGR = (score_SHGR - score_SHGR.amax(-1, keepdim=True)).exp_().view(slots * heads_kv, -1, reach)
    out_nGd = query_nGd.new_zeros(*query_nGd.shape[:2], values.shape[-1])
    total_nG1 = query_nGd.new_zeros(*query_nGd.shape[:2], 1)
    for at in blocks:
        part = weight_nGR[:, :, at : at + BLOCK].contiguous()
        out_nGd += torch.bmm(part, _block(values, at))
        total_nG1 += part.sum(-1, keepdim=True)
    out = (out_nGd / total_nG1).to(query.dtype)
    return out.view(1, slots, -1, values.shape[-1]).transpose(1, 2)


def _block(cached: Tensor, at: int) -> Tensor:
    """One block of cached keys or values, [S, H_kv, R, d] -> float32 [S · H_kv, BLOCK, d]."""
    return cached[:, :, at : at + BLOCK].reshape(-1, BLOCK, cached.shape[-1]).float()


def flat_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    cu_seq_lens_q: Tensor | None = None,
    cu_seq_lens_k: Tensor | None = None,
    kv_cache: KVCache | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """transformers' attention interface: query [1, H, T, d], key and value [1, H_kv, T, d] -> [1, T, H, d].

    Raises:
        ModelError: a feature whose silence would give other numbers (attention sinks, a padded batch, no starts).
    """
    if kwargs.get("s_aux") is not None or attention_mask is not None or query.shape[0] != 1:
        raise ModelError(
            f"{type(module).__name__} needs attention sinks or a mask, which flat attention does not compute",
            fix="load the model with the padded fallback",
        )
    scale: float = query.shape[-1] ** -0.5 if scaling is None else scaling
    layer = getattr(module, "layer_idx", None)
    if kv_cache is not None and kv_cache.filling is None:
        if layer is None:
            raise ModelError(f"{type(module).__name__} does not say which layer it is", fix="use the slow sampler")
        keys, values = kv_cache.append(layer, key, value)
        return _decode(query, keys, values, kv_cache.bias(sliding_window), scale, softcap).transpose(1, 2), None
    if cu_seq_lens_q is None:
        raise ModelError("flat attention was called without cu_seq_lens_q", fix="call the model through models.flat")
    if kv_cache is not None:
        kv_cache.prefill(layer if layer is not None else -1, key, value)
    starts = cu_seq_lens_q.tolist()
    texts = [
        _one_text(query[:, :, a:b], key[:, :, a:b], value[:, :, a:b], scale, sliding_window, softcap)
        for a, b in pairwise(starts)
    ]
    return torch.cat(texts, 2).transpose(1, 2), None


AttentionInterface.register(IMPLEMENTATION, flat_attention)
