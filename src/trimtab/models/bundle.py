"""All models of one stage in one module: the only thing an engine ever wraps.

Parts are the language models and scalar models of a stage by name (``policy``, ``reference``, ``value``,
``reward``). With
a split at layer L - k they are branches on one frozen trunk, whose activations are computed once (``trunk_TD``) and
reused by every branch and epoch; without one they are whole models, or, under LoRA, one frozen base with an adapter for
each part but the reference, which is the base itself.

Gradients cannot cross parts: a value branch reads the *frozen* trunk, a whole model or an adapter of its own.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from trimtab.batch import FlatBatch
from trimtab.errors import ModelError
from trimtab.models.flat import Body, Mode, decoder_of
from trimtab.models.hydra import branch_of, check, trunk_of, trunk_output
from trimtab.models.lora import (
    adapted,
    adapter_parameters,
    adapters,
    copied,
    merged as with_adapter_merged,
    with_decoder,
)
from trimtab.ops.logprob import LogitMap, token_logprob
from trimtab.protocols import LoRASpec


def logit_map_of(config: object) -> LogitMap:
    """Scaling and cap that a family applies to its logits (Granite divides, Cohere multiplies, Gemma-2 caps)."""
    scale = float(getattr(config, "logit_scale", None) or 1.0) / float(getattr(config, "logits_scaling", None) or 1.0)
    cap = getattr(config, "final_logit_softcapping", None)
    return LogitMap(scale=scale, softcap=None if cap is None else float(cap))


def _scatter(batch: FlatBatch, at_A: Tensor, value_A: Tensor) -> Tensor:
    return torch.zeros(batch.tokens, dtype=torch.float32, device=value_A.device).index_put((at_A,), value_A)


def _logp_T(
    batch: FlatBatch, hidden_TD: Tensor, head: nn.Module, logit_map: LogitMap, *, temperature: float, entropy: bool
) -> dict[str, Tensor]:
    at_A = batch.act_T.nonzero().squeeze(-1)
    logp_A, entropy_A = token_logprob(
        hidden_TD[batch.prev_T[at_A]],
        cast(Tensor, head.weight),
        cast("Tensor | None", getattr(head, "bias", None)),
        batch.ids_T[at_A],
        temperature=temperature,
        logit_map=logit_map,
        entropy=entropy,
    )
    out = {"logp_T": _scatter(batch, at_A, logp_A)}
    return out if entropy_A is None else out | {"entropy_T": _scatter(batch, at_A, entropy_A)}


class LMPart(nn.Module):
    """Hidden states to log-probabilities of the actions."""

    def __init__(self, body: Body, head: nn.Module, logit_map: LogitMap, on_trunk: bool) -> None:
        super().__init__()
        self.body, self.head, self.logit_map, self.on_trunk = body, head, logit_map, on_trunk

    def forward(
        self, batch: FlatBatch, trunk_TD: Tensor | None, temperature: float, entropy: bool
    ) -> dict[str, Tensor]:
        """``logp_T`` (and ``entropy_T``): zero where ``act_T`` is False. Only actions meet the vocabulary."""
        hidden_TD = self.body(batch, trunk_TD if self.on_trunk else None)
        return _logp_T(batch, hidden_TD, self.head, self.logit_map, temperature=temperature, entropy=entropy)


class ScalarPart(nn.Module):
    """Hidden states to one number: a ``score`` read at a text's last token, or ``value_T`` read before each action.

    A scorer may also give ``logp_T`` of the actions from the same forward (``lm``: a frozen output embedding), for the
    language-model regulariser of reward models.
    """

    lm: tuple[nn.Module, LogitMap] | None

    def __init__(
        self,
        body: Body,
        head: nn.Linear,
        reads: Literal["last", "prev"],
        on_trunk: bool,
        lm: tuple[nn.Module, LogitMap] | None = None,
    ) -> None:
        super().__init__()
        self.body, self.head, self.on_trunk = body, head.float(), on_trunk
        self.reads: Literal["last", "prev"] = reads
        self.__dict__["lm"] = lm  # not registered: the embedding belongs to the language model

    def forward(self, batch: FlatBatch, trunk_TD: Tensor | None) -> dict[str, Tensor]:
        hidden_TD = self.body(batch, trunk_TD if self.on_trunk else None)
        if self.reads == "prev":
            at_A = batch.act_T.nonzero().squeeze(-1)
            value_A = self.head(hidden_TD[batch.prev_T[at_A]].float()).squeeze(-1)
            return {"value_T": _scatter(batch, at_A, value_A)}
        out = {"score_N": self.head(hidden_TD[batch.last_T()].float()).squeeze(-1)}
        if self.lm is not None:
            head, logit_map = self.lm
            out |= _logp_T(batch, hidden_TD, head, logit_map, temperature=1.0, entropy=False)
        return out


class Bundle(nn.Module):
    """Parts by name over one language model, with or without a shared trunk.

    Args:
        lm: the language model that the policy is; sampling and saving use the same tensors.
        mode: flat attention or the padded fallback (``models.load`` decides by a probe).
        branch: layers above the frozen trunk, or None for whole models.
        lora: adapters on the language model, which is then frozen itself; None for none. Not both.
        seed: of the random streams that adapters start from.

    Attributes:
        policy_lm: the language model that the policy is: ``lm``, or under LoRA the base through the policy's adapter.
            Samplers are handed this one; it has the trainer's own tensors.
    """

    policy_lm: PreTrainedModel

    def __init__(
        self, lm: PreTrainedModel, mode: Mode, branch: int | None, lora: LoRASpec | None = None, seed: int = 0
    ) -> None:
        super().__init__()
        if branch and lora:
            raise ModelError("a model has a branch or adapters, not both", fix="remove branch, or lora")
        self.lm, self.branch, self.lora, self.seed = lm, branch, lora, seed
        self.__dict__["policy_lm"] = lm  # not registered: its tensors belong to ``lm`` and to the part ``policy``
        self.mode: Mode = mode
        lm.requires_grad_(False)
        lm.eval()  # dropout stays off: on-policy passes and gradients must see one function
        self.whole = Body(decoder_of(lm), mode)
        self.logit_map = logit_map_of(lm.config)
        self.trunk = trunk_of(self.whole, branch) if branch else None
        self.parts = nn.ModuleDict()
        if self.trunk is not None and branch:
            check(self.whole, self.trunk, branch_of(self.whole, branch, copied=False))

    @property
    def device(self) -> torch.device:
        return next(self.lm.parameters()).device

    @property
    def width(self) -> int:
        """Of hidden states between layers."""
        return cast(int, self.lm.config.hidden_size)

    @property
    def width_out(self) -> int:
        """Of hidden states after the last layer and norm: the input of heads. OPT-350m projects them down."""
        return cast(int, getattr(self.lm.config, "word_embed_proj_dim", None) or self.width)

    def _head(self) -> nn.Module:
        return cast(nn.Module, self.lm.get_output_embeddings())

    def add_policy(self) -> None:
        """The language model itself, trained: its branch, or all of it. On a trunk its output embedding is frozen."""
        if self.lora is not None:
            body = self._adapted("policy")
            self.__dict__["policy_lm"] = with_decoder(self.lm, body.decoder)
        elif self.branch:
            body = branch_of(self.whole, self.branch, copied=False)
            body.requires_grad_(True)
        else:
            body = self.whole
            self.lm.requires_grad_(True)
        self.parts["policy"] = LMPart(body, self._head(), self.logit_map, on_trunk=bool(self.branch))

    def _adapted(self, name: str, body: Body | None = None) -> Body:
        """A body with an adapter of its own, which changes nothing yet."""
        body = body or self.whole
        return Body(adapted(body.decoder, cast(LoRASpec, self.lora), self.seed, name), body.mode)

    def add_reference(self, name: str = "reference") -> None:
        """A frozen copy of the language model as it is now (its branch only, under a trunk).

        Under LoRA it is the base itself, without any adapter: nothing is copied, and nothing ever writes to it.
        """
        if self.lora is not None:
            part = LMPart(self.whole, self._head(), self.logit_map, False)
        elif self.branch:
            part = LMPart(branch_of(self.whole, self.branch, copied=True), self._head(), self.logit_map, True)
        else:
            body = Body(copy.deepcopy(decoder_of(self.lm)), self.mode)
            part = LMPart(body, copy.deepcopy(self._head()), self.logit_map, False)
        part.body.requires_grad_(False)
        if not self.branch:
            part.requires_grad_(False)
        self.parts[name] = part

    def starting_as(self, name: str) -> Body:
        """A body for a part that begins as another one and learns by itself: a deep copy, or under LoRA the same base
        with a copy of that part's adapter (with a fresh one, where it has none)."""
        body = cast(Body, cast(Any, self.parts[name]).body)
        if self.lora is None:
            return copy.deepcopy(body)
        return Body(copied(body.decoder), body.mode) if adapters(body) else self._adapted(f"like {name}", body)

    def saved_lm(self) -> PreTrainedModel:
        """The policy as a plain language model: itself, or under LoRA a copy of the base with its adapter merged in."""
        if self.lora is None:
            return self.lm
        return with_decoder(self.lm, with_adapter_merged(cast(Any, self.parts["policy"]).body.decoder))

    def add_scalar(
        self,
        name: str,
        reads: Literal["last", "prev"],
        *,
        body: Body | None = None,
        head: nn.Linear | None = None,
        trained: bool,
        on_trunk: bool | None = None,
        lm: bool = False,
    ) -> None:
        """A scalar model; by default a copy of the language model's branch (or all of it) with a zero head.

        ``lm``: its ``logp_T`` is wanted too, through the language model's frozen output embedding.
        """
        if body is None:
            if self.lora is not None:
                body = self._adapted(name)
            elif self.branch:
                body = branch_of(self.whole, self.branch, copied=True)
            else:
                body = Body(copy.deepcopy(decoder_of(self.lm)), self.mode)
        if head is None:
            head = nn.Linear(self.width_out, 1, bias=reads == "prev", device=self.device)
            nn.init.zeros_(head.weight)
            if head.bias is not None:
                nn.init.zeros_(head.bias)
        through = (self._head(), self.logit_map) if lm else None
        part = ScalarPart(body, head, reads, bool(self.branch) if on_trunk is None else on_trunk, through)
        small = [*adapter_parameters(part), *part.head.parameters()] if adapters(part) else None
        for parameter in small or part.parameters():  # a part's base belongs to others too, and is frozen
            parameter.requires_grad_(trained)
        self.parts[name] = part

    def trained(self, name: str) -> dict[str, nn.Parameter]:
        """The trainable parameters of a part, named ``part.parameter``."""
        part = cast(nn.Module, self.parts[name])
        if name == "policy" and not self.branch and self.lora is None:
            part = self.lm
        named = {f"{name}.{key}": value for key, value in part.named_parameters() if value.requires_grad}
        if not named:
            raise ModelError(f"part {name} has nothing to train")
        return named

    def trunk_TD(self, batch: FlatBatch) -> Tensor | None:
        """The batch's trunk activations: its ``trunk_TD`` column, or computed now; None without a trunk."""
        if self.trunk is None:
            return None
        return batch["trunk_TD"] if "trunk_TD" in batch else trunk_output(self.trunk, batch)

    def forward(
        self, tasks: Iterable[str], batch: FlatBatch, *, temperature: float = 1.0, entropy: bool = False
    ) -> dict[str, dict[str, Tensor]]:
        """What each named part says of the batch: ``{"policy": {"logp_T": ...}, "value": {"value_T": ...}}``."""
        tasks = tuple(tasks)
        # a part that is no branch may read other tokens: a reward model with a tokenizer of its own
        trunk_TD = self.trunk_TD(batch) if any(cast(Any, self.parts[name]).on_trunk for name in tasks) else None
        out: dict[str, dict[str, Tensor]] = {}
        for name in tasks:
            part = self.parts[name]
            if isinstance(part, LMPart):
                out[name] = part(batch, trunk_TD, temperature, entropy)
            else:
                out[name] = part(batch, trunk_TD)
        return out
