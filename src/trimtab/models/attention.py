"""Attention over a flat batch, registered with transformers under ``IMPLEMENTATION``.

One axis of tokens, ``cu_seq_lens_q`` saying where each text starts (transformers' own names, so FlashAttention's varlen
kernels fit the same call). Each text is attended alone, causally: a loop of ``scaled_dot_product_attention``.
With a ``kv_cache`` the call is one decode step instead: every token is the newest of its own slot.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AttentionInterface

from trimtab.errors import ModelError

IMPLEMENTATION = "trimtab_flat"


class KVCache:
    """Keys and values of ``slots`` texts of at most ``capacity`` tokens, for every layer; allocated once.

    A slot's text has ``length_S[slot]`` tokens; a decode step writes each slot's newest key and value at that place.
    Free slots hold whatever was there before: they are computed and ignored, so the shape of every product is fixed.
    """

    def __init__(self, slots: int, capacity: int) -> None:
        self.slots, self.capacity = slots, capacity
        self.layers: dict[int, tuple[Tensor, Tensor]] = {}
        self.length_S = torch.zeros(slots, dtype=torch.long)
        self.filling: int | None = None
        """Slot that a prefill writes to; None during decode steps."""

    def _layer(self, index: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        if index not in self.layers:
            self.layers[index] = (
                key.new_zeros(self.slots, key.shape[1], self.capacity, key.shape[-1]),
                value.new_zeros(self.slots, value.shape[1], self.capacity, value.shape[-1]),
            )
        return self.layers[index]

    def prefill(self, index: int, key: Tensor, value: Tensor) -> None:
        """Write the keys and values ([1, H, T, d]) of one whole prompt to slot ``filling``."""
        keys, values = self._layer(index, key, value)
        keys[self.filling, :, : key.shape[2]] = key[0]
        values[self.filling, :, : value.shape[2]] = value[0]

    def append(self, index: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Write one key and value per slot ([1, H, S, d]) at ``length_S``; returns all of them [S, H, capacity, d]."""
        keys, values = self._layer(index, key, value)
        slot = torch.arange(self.slots)
        keys[slot, :, self.length_S] = key[0].transpose(0, 1)
        values[slot, :, self.length_S] = value[0].transpose(0, 1)
        return keys, values

    def copy_slot(self, source: int, target: int) -> None:
        """Give ``target`` the text of ``source`` (the samples of one prompt share its prefill)."""
        for keys, values in self.layers.values():
            keys[target] = keys[source]
            values[target] = values[source]
        self.length_S[target] = self.length_S[source]


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


def _decode(query: Tensor, keys: Tensor, values: Tensor, length_S: Tensor, scaling: float) -> Tensor:
    """One query per slot against its cached keys: query [1, H, S, d] -> [1, H, S, d]."""
    slots, heads_kv, capacity, width = keys.shape
    grouped = query[0].transpose(0, 1).reshape(slots, heads_kv, -1, width)
    seen = torch.arange(capacity, device=query.device)[None, :] <= length_S[:, None]
    out = F.scaled_dot_product_attention(grouped, keys, values, attn_mask=seen[:, None, None, :], scale=scaling)
    return out.reshape(1, slots, -1, out.shape[-1]).transpose(1, 2)


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
    scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
    layer = getattr(module, "layer_idx", None)
    if kv_cache is not None and kv_cache.filling is None:
        if layer is None or softcap is not None or (sliding_window or kv_cache.capacity) < kv_cache.capacity:
            raise ModelError(f"{type(module).__name__} has no cached decode step here", fix="use the slow sampler")
        keys, values = kv_cache.append(layer, key, value)
        return _decode(query, keys, values, kv_cache.length_S, scaling).transpose(1, 2), None
    if cu_seq_lens_q is None:
        raise ModelError("flat attention was called without cu_seq_lens_q", fix="call the model through models.flat")
    if kv_cache is not None:
        kv_cache.prefill(layer if layer is not None else -1, key, value)
    starts = cu_seq_lens_q.tolist()
    texts = [
        _one_text(query[:, :, a:b], key[:, :, a:b], value[:, :, a:b], scaling, sliding_window, softcap)
        for a, b in zip(starts[:-1], starts[1:], strict=True)
    ]
    return torch.cat(texts, 2).transpose(1, 2), None


AttentionInterface.register(IMPLEMENTATION, flat_attention)
