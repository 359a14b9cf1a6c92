"""One frozen trunk, several branches: a decoder split at layer L - k without a forward of our own per family.

Trunk = the decoder with ``layers[:L-k]`` and its final norm replaced by the identity. A branch = the same class with
only ``layers[L-k:]``, fed the trunk's output as ``inputs_embeds``, with whatever touches embeddings neutralised
(learned
positions give zero, an embedding norm is the identity). ``check`` compares trunk + branch with the whole model bit for
bit. The design is bloomz-rlhf's (trlx's "hydra"), the construction ours.
"""

from __future__ import annotations

import copy
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from trimtab.batch import FlatBatch, Sequence, flatten
from trimtab.errors import ModelError
from trimtab.models.flat import Body, layer_list, shallow

_FINAL_NORMS = ("norm", "ln_f", "final_layer_norm", "final_layernorm", "norm_f")
_EMBEDDING_NORMS = ("word_embeddings_layernorm", "embedding_layernorm", "embed_layer_norm")
_EMBEDDING_PROJECTIONS = ("project_in",)
_FINAL_PROJECTIONS = ("project_out",)
_INSTEAD = "use sharing: lora with the model's lora, or sharing: separate; and leave out the model's branch"
_POSITIONS = ("wpe", "embed_positions", "position_embeddings")


class NoPositions(nn.Module):
    """Learned positions above a split: nothing is added, the trunk has done so."""

    def __init__(self, width: int, dtype: torch.dtype) -> None:
        super().__init__()
        self.width, self.dtype = width, dtype

    def forward(self, positions: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        given = kwargs.get("position_ids")
        shape = positions.shape if given is None else given.shape
        return torch.zeros(*shape, self.width, dtype=self.dtype, device=positions.device)


def _part(decoder: PreTrainedModel, layers: slice, *, neutralise: Literal["above", "below", ""]) -> PreTrainedModel:
    """A decoder with some of the layers, sharing their tensors, and without what lies above or below them."""
    config = copy.deepcopy(decoder.config)
    count = cast(int, config.num_hidden_layers)
    try:
        path_owner, name = layer_list(decoder, count)
    except LookupError as error:
        raise ModelError(f"{error}: this family cannot be split", fix=_INSTEAD) from error
    kept = list(cast(nn.ModuleList, getattr(path_owner, name)))[layers]
    config.num_hidden_layers = len(kept)
    if getattr(config, "layer_types", None) is not None:
        config.layer_types = list(config.layer_types)[layers]
    twin = shallow(decoder)
    owner = twin
    if path_owner is not decoder:  # OPT keeps its layers one level deeper
        key = next(k for k, v in decoder.named_children() if v is path_owner)
        owner = shallow(path_owner)
        twin._modules[key] = owner
    for module in {id(twin): twin, id(owner): owner}.values():
        cast(Any, module).config = config
    owner._modules[name] = nn.ModuleList(kept)
    width = cast(int, config.hidden_size)
    for child, module in list(owner.named_children()):
        if neutralise == "above" and child in (*_FINAL_NORMS, *_FINAL_PROJECTIONS) and module is not None:
            owner._modules[child] = nn.Identity()
        if neutralise == "below" and child in (*_EMBEDDING_NORMS, *_EMBEDDING_PROJECTIONS) and module is not None:
            owner._modules[child] = nn.Identity()
        if neutralise == "below" and child in _POSITIONS:
            owner._modules[child] = NoPositions(width, decoder.dtype)
    return cast(PreTrainedModel, twin)


def trunk_of(body: Body, k: int) -> Body:
    """The frozen lower part, sharing tensors with ``body``."""
    count = cast(int, body.decoder.config.num_hidden_layers)
    if not 0 < k < count:
        raise ModelError(f"branch: {k} of {count} layers leaves no trunk", fix=f"choose 1..{count - 1}")
    return Body(_part(body.decoder, slice(0, count - k), neutralise="above"), body.mode)


def branch_of(body: Body, k: int, *, copied: bool) -> Body:
    """The upper k layers and final norm: sharing tensors with ``body``, or a deep copy of them.

    Embeddings, which a branch never reads, are dropped from it, so its parameters are exactly its own.
    """
    count = cast(int, body.decoder.config.num_hidden_layers)
    part = _part(body.decoder, slice(count - k, count), neutralise="below")
    embedding = part.get_input_embeddings()
    for owner in part.modules():
        for name, child in list(owner.named_children()):
            if child is embedding:
                owner._modules[name] = nn.Identity()
    return Body(copy.deepcopy(part) if copied else part, body.mode)


def merged(whole: Body, branch: Body) -> Body:
    """The whole decoder with its upper layers, and what follows them, taken from a branch. Shares all tensors."""
    count = cast(int, whole.decoder.config.num_hidden_layers)
    k = cast(int, branch.decoder.config.num_hidden_layers)
    twin = _part(whole.decoder, slice(0, count), neutralise="")
    owner, name = layer_list(twin, count)
    upper, upper_name = layer_list(branch.decoder, k)
    layers = list(cast(nn.ModuleList, getattr(owner, name)))[: count - k]
    owner._modules[name] = nn.ModuleList([*layers, *cast(nn.ModuleList, getattr(upper, upper_name))])
    for child, module in upper.named_children():
        if child in (*_FINAL_NORMS, *_FINAL_PROJECTIONS):
            owner._modules[child] = module
    return Body(twin, whole.mode)


@torch.no_grad()
def check(whole: Body, trunk: Body, branch: Body) -> None:
    """Trunk + branch equals the whole decoder bit for bit on a small flat batch.

    Raises:
        ModelError: it does not; this family cannot be split here.
    """
    device = next(whole.parameters()).device
    vocabulary = cast(int, whole.decoder.config.vocab_size)
    lengths = (5, 9, 3)
    rows = [
        Sequence(ids=[(7 * i + 11 * row) % vocabulary for i in range(n)], act=[False] * n)
        for row, n in enumerate(lengths)
    ]
    batch = flatten(rows).to(device)
    family = type(whole.decoder).__name__
    expected = whole(batch)
    try:
        same = torch.equal(expected, branch(batch, trunk(batch)))
    except (TypeError, ValueError, RuntimeError, LookupError, AttributeError) as error:
        reason = str(error).partition("\n")[0]
        raise ModelError(
            f"{family}: this family cannot be split into trunk and branch ({reason})", fix=_INSTEAD
        ) from error
    if not same:
        raise ModelError(f"{family}: trunk and branch do not give the whole model's numbers", fix=_INSTEAD)


def trunk_output(trunk: Body, batch: FlatBatch) -> Tensor:
    """Activations [T, D] below the split, without gradient (and not inference tensors: branches save them)."""
    with torch.no_grad():
        return trunk(batch)
