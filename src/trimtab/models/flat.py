"""The one forward: a decoder over a flat batch, whatever its family.

A ``Body`` is a transformers decoder without its output embedding (``LlamaModel``, ``GPT2Model``, ...), or the layers of
one above or below a split. It maps ids or hidden states of a flat batch to hidden states, ``[T, D]``. Families whose
attention cannot take one axis (BLOOM, Falcon, MPT) are padded and unpadded here, and nobody else knows.
"""

from __future__ import annotations

import copy
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from trimtab.batch import FlatBatch
from trimtab.models.attention import IMPLEMENTATION, KVCache

Mode = Literal["flat", "padded"]


class Body(nn.Module):
    """Hidden states of a flat batch from one decoder, by flat attention or by the padded fallback."""

    def __init__(self, decoder: PreTrainedModel, mode: Mode) -> None:
        super().__init__()
        self.decoder = decoder
        self.mode: Mode = mode

    def forward(self, batch: FlatBatch, hidden_TD: Tensor | None = None, cache: KVCache | None = None) -> Tensor:
        """Hidden states [T, D] after the last layer and norm.

        Args:
            batch: the tokens; on the decoder's device.
            hidden_TD: what enters the first layer instead of embeddings (a trunk's output).
            cache: keys and values are written to it (a prefill), or one decode step is taken.
        """
        if self.mode == "padded":
            if cache is not None:
                raise ValueError("the padded fallback has no key/value cache")
            return self._padded(batch, hidden_TD)
        entering = {"input_ids": batch.ids_T[None]} if hidden_TD is None else {"inputs_embeds": hidden_TD[None]}
        extra: dict[str, Any] = {} if cache is None else {"kv_cache": cache}
        out = self.decoder(
            **entering,
            position_ids=batch.position_T[None],
            cu_seq_lens_q=batch.start_N1,
            cu_seq_lens_k=batch.key_start_N1,
            use_cache=False,
            **extra,
        )
        return out.last_hidden_state[0]

    def _padded(self, batch: FlatBatch, hidden_TD: Tensor | None) -> Tensor:
        rows, columns = batch.sequence_T, batch.position_T
        shape = (batch.sequences, int(batch.lengths_N.max()))
        mask = torch.zeros(shape, dtype=torch.long, device=rows.device)
        mask[rows, columns] = 1
        if hidden_TD is None:
            ids = torch.zeros(shape, dtype=torch.long, device=rows.device)
            ids[rows, columns] = batch.ids_T
            out = self.decoder(input_ids=ids, attention_mask=mask, use_cache=False)
        else:
            padded = hidden_TD.new_zeros(*shape, hidden_TD.shape[-1])
            padded[rows, columns] = hidden_TD
            out = self.decoder(inputs_embeds=padded, attention_mask=mask, use_cache=False)
        return out.last_hidden_state[rows, columns]


def set_attention(model: nn.Module, implementation: str) -> None:
    """Set the attention of every module that holds a config, copies included.

    A deep-copied layer keeps a config of its own, so switching the model's alone would leave it attending across texts.
    """
    seen: set[int] = set()
    for module in model.modules():
        config = getattr(module, "config", None)
        if config is not None and id(config) not in seen:
            seen.add(id(config))
            config._attn_implementation = implementation


def set_mode(model: PreTrainedModel, mode: Mode) -> None:
    """Set the attention that a mode needs: ours on one axis; on padded rows torch's own, where the family has it."""
    padded = "sdpa" if getattr(model, "_supports_sdpa", False) else "eager"
    set_attention(model, IMPLEMENTATION if mode == "flat" else padded)


def layer_list(decoder: nn.Module, count: int) -> tuple[nn.Module, str]:
    """The module that owns the decoder's layers, and the attribute's name.

    Raises:
        LookupError: no ModuleList of ``count`` layers, or more than one.
    """
    found = [
        (owner, name)
        for owner in decoder.modules()
        for name, child in owner.named_children()
        if isinstance(child, nn.ModuleList) and len(child) == count
    ]
    if len(found) != 1:
        raise LookupError(f"{type(decoder).__name__} has {len(found)} lists of {count} layers, expected one")
    return found[0]


def shallow(module: nn.Module) -> nn.Module:
    """A copy of the module object that shares parameters and children; its children can be replaced apart."""
    twin = copy.copy(module)
    twin._modules = dict(module._modules)
    twin._parameters = dict(module._parameters)
    twin._buffers = dict(module._buffers)
    return twin


def decoder_of(lm: PreTrainedModel) -> PreTrainedModel:
    """The decoder without its output embedding (for OPT the model around ``decoder``, as transformers has it)."""
    return cast(PreTrainedModel, lm.base_model)
