"""Log-probabilities of given tokens from hidden states, without ever holding a [tokens, vocabulary] matrix whole.

Legend: ``A`` tokens asked for (actions), ``D`` hidden size, ``V`` vocabulary, ``C`` tokens of one chunk.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


@dataclass(frozen=True)
class LogitMap:
    """What a family does to its logits: ``softcap·tanh(scale·x / softcap)``, then division by the temperature.

    ``scale`` is Granite's ``1/logits_scaling`` and Cohere's ``logit_scale``; ``softcap`` is Gemma-2's.
    """

    scale: float = 1.0
    softcap: float | None = None

    def __call__(self, raw: Tensor, temperature: float = 1.0) -> Tensor:
        logits = raw.float()
        if self.scale != 1.0:
            logits = logits * self.scale
        if self.softcap is not None:
            logits = self.softcap * torch.tanh(logits / self.softcap)
        return logits / temperature if temperature != 1.0 else logits

    def backward(self, grad: Tensor, logits: Tensor, temperature: float) -> Tensor:
        """Gradient with respect to the raw logits, given the mapped ones."""
        if temperature != 1.0:
            grad = grad / temperature
        if self.softcap is not None:
            grad = grad * (1 - (logits * temperature / self.softcap).square())
        return grad * self.scale if self.scale != 1.0 else grad


class _TokenLogProb(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden_AD: Tensor,
        weight_VD: Tensor,
        bias_V: Tensor | None,
        target_A: Tensor,
        temperature: float,
        logit_map: LogitMap,
        chunk: int,
        with_entropy: bool,
    ) -> tuple[Tensor, Tensor, Tensor]:
        count = hidden_AD.shape[0]
        logp_A = hidden_AD.new_zeros(count, dtype=torch.float32)
        entropy_A = hidden_AD.new_zeros(count if with_entropy else 0, dtype=torch.float32)
        lse_A = hidden_AD.new_zeros(count, dtype=torch.float32)
        for at in range(0, count, chunk):
            part = slice(at, at + chunk)
            logits_CV = logit_map(torch.nn.functional.linear(hidden_AD[part], weight_VD, bias_V), temperature)
            lse_A[part] = torch.logsumexp(logits_CV, -1)
            logp_A[part] = logits_CV.gather(-1, target_A[part, None]).squeeze(-1) - lse_A[part]
            if with_entropy:
                p_CV = (logits_CV - lse_A[part, None]).exp_()
                entropy_A[part] = lse_A[part] - (p_CV * logits_CV).sum(-1)
        ctx.save_for_backward(hidden_AD, weight_VD, bias_V, target_A, lse_A, entropy_A)
        ctx.settings = (temperature, logit_map, chunk, with_entropy)
        ctx.mark_non_differentiable(lse_A)
        return logp_A, entropy_A, lse_A

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        grad_logp_A, grad_entropy_A = grads[0], grads[1]
        hidden_AD, weight_VD, bias_V, target_A, lse_A, entropy_A = ctx.saved_tensors
        temperature, logit_map, chunk, with_entropy = ctx.settings
        need_hidden, need_weight, need_bias = ctx.needs_input_grad[:3]
        dhidden_AD = torch.zeros_like(hidden_AD) if need_hidden else None
        dweight_VD = torch.zeros_like(weight_VD, dtype=torch.float32) if need_weight else None
        dbias_V = torch.zeros_like(bias_V, dtype=torch.float32) if need_bias and bias_V is not None else None
        for at in range(0, hidden_AD.shape[0], chunk):
            part = slice(at, at + chunk)
            logits_CV = logit_map(torch.nn.functional.linear(hidden_AD[part], weight_VD, bias_V), temperature)
            logp_CV = logits_CV - lse_A[part, None]
            p_CV = logp_CV.exp()
            grad_CV = p_CV * -grad_logp_A[part, None]
            if with_entropy:  # dH/dx_v = -p_v (log p_v + H)
                grad_CV -= grad_entropy_A[part, None] * p_CV * (logp_CV + entropy_A[part, None])
            grad_CV.scatter_add_(-1, target_A[part, None], grad_logp_A[part, None])
            raw_CV = logit_map.backward(grad_CV, logits_CV, temperature).to(hidden_AD.dtype)
            if dhidden_AD is not None:
                dhidden_AD[part] = raw_CV @ weight_VD
            if dweight_VD is not None:
                dweight_VD += raw_CV.T @ hidden_AD[part]
            if dbias_V is not None:
                dbias_V += raw_CV.float().sum(0)
        return (
            dhidden_AD,
            None if dweight_VD is None else dweight_VD.to(weight_VD.dtype),
            None if dbias_V is None else dbias_V.to(weight_VD.dtype),
            *(None,) * 5,
        )


def token_logprob(
    hidden_AD: Tensor,
    weight_VD: Tensor,
    bias_V: Tensor | None,
    target_A: Tensor,
    *,
    temperature: float = 1.0,
    logit_map: LogitMap | None = None,
    chunk: int = 256,
    entropy: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """``log softmax(map(h·Wᵀ + b) / temperature)[target]`` for each of A hidden states, in float32.

    Args:
        hidden_AD: hidden states, any float dtype; logits are computed in it and reduced in float32.
        weight_VD, bias_V: the output embedding.
        target_A: int64 token ids.
        temperature: the one that was sampled at; folded in before the softmax.
        logit_map: the family's scaling and cap.
        chunk: tokens whose logits exist at one time; memory is ``chunk · V`` floats.
        entropy: also return the entropy of each distribution, in nats, with its gradient.

    Returns:
        ``logp_A`` and ``entropy_A`` (None unless asked for).
    """
    logp_A, entropy_A, _ = _TokenLogProb.apply(
        hidden_AD, weight_VD, bias_V, target_A, temperature, logit_map or LogitMap(), chunk, entropy
    )
    return logp_A, entropy_A if entropy else None
