"""From logits to tokens. Axes: S decode slot, V vocabulary, B block of the vocabulary.

``final_logits`` gives the distribution that is sampled from; ``inverse_cdf`` turns one uniform number per slot into a
token of it. Nothing here draws random numbers, and a slot's token does not depend, to the bit, on the other slots.
The order of the parts is transformers': repetition penalty, temperature, top-k, top-p. None needs gradients.
"""

from __future__ import annotations

import torch
from torch import Tensor

from trimtab.errors import Diverged

_BLOCK = 256


@torch.no_grad()
def inverse_cdf(logits_SV: Tensor, uniform_S: Tensor) -> tuple[Tensor, Tensor]:
    """The token at which the cumulative distribution first exceeds the uniform number.

    Probabilities are float32; they are summed by blocks of the vocabulary, blocks in float64. A single float32
    running sum (as in ``cumsum`` and ``searchsorted``) stops growing near 1, so rare tokens late in the vocabulary
    would never be drawn. A token of probability 0 is never returned, whatever the uniform number.

    Args:
        logits_SV: float [S, V] of the final distribution; -inf excludes a token.
        uniform_S: float [S] in [0, 1), on the same device.

    Returns:
        (token_S, logp_S): int64 [S], and float32 [S], log-probability under the final distribution.

    Raises:
        ValueError: a number of ``uniform_S`` is outside [0, 1).
        Diverged: a row has a NaN, +inf or nothing but -inf.
    """
    if bool(((uniform_S < 0) | (uniform_S >= 1) | uniform_S.isnan()).any()):
        raise ValueError("uniform numbers must be at least 0 and below 1")
    logits_SV = logits_SV.float()
    slots, size = logits_SV.shape
    blocks = -(-size // _BLOCK)
    top_S1 = logits_SV.amax(-1, keepdim=True)
    mass_SV = logits_SV.new_empty(slots, blocks * _BLOCK)
    torch.sub(logits_SV, top_S1, out=mass_SV[:, :size]).exp_()  # out= saves a pass over S·V
    mass_SV[:, size:] = 0
    mass_SBv = mass_SV.view(slots, blocks, _BLOCK)

    upto_SB = mass_SBv.sum(-1).double().cumsum(-1)
    total_S = upto_SB[:, -1]
    if not bool(total_S.isfinite().all()):
        bad = (~total_S.isfinite()).nonzero().flatten().tolist()
        raise Diverged(
            f"the model's logits are not finite (decode slots {bad[:8]})",
            fix="resume from an earlier checkpoint with a lower learning rate, or in float32",
        )
    target_S1 = (uniform_S.double() * total_S)[:, None]
    # Counting the sums that are not above the target gives the first one that is: it has a step, so it has mass.
    block_S1 = (upto_SB <= target_S1).sum(-1, keepdim=True)
    before_S1 = torch.where(block_S1 > 0, upto_SB.gather(1, (block_S1 - 1).clamp(min=0)), 0.0)
    within_Sv = mass_SBv.gather(1, block_S1[..., None].expand(-1, 1, _BLOCK)).squeeze(1).double().cumsum(-1)
    # The block's float32 sum may exceed its float64 one: then the target lies past the end, and the last step counts.
    below_Sv = (within_Sv <= target_S1 - before_S1) & (within_Sv < within_Sv[:, -1:])
    token_S1 = block_S1 * _BLOCK + below_Sv.sum(-1, keepdim=True)
    logp_S = (logits_SV.gather(1, token_S1) - top_S1).squeeze(1).double() - total_S.log()
    return token_S1.squeeze(1), logp_S.float()


@torch.no_grad()
def greedy(logits_SV: Tensor) -> tuple[Tensor, Tensor]:
    """Temperature 0: the likeliest token (of equals the first), with certainty.

    Returns:
        (token_S, logp_S): int64 [S], and zeros: the distribution has all its mass there.

    Raises:
        Diverged: a row's largest logit is NaN or infinite.
    """
    top_S = logits_SV.amax(-1)
    if not bool(top_S.isfinite().all()):
        raise Diverged("the model's logits are not finite", fix="resume from an earlier checkpoint")
    return logits_SV.argmax(-1), torch.zeros_like(top_S, dtype=torch.float32)


def final_logits(
    logits_SV: Tensor,
    seen_SV: Tensor | None = None,
    *,
    repetition_penalty: float = 1.0,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
) -> Tensor:
    """The model's logits -> those of the distribution that is sampled: float32 [S, V].

    Args:
        logits_SV: float [S, V].
        seen_SV: bool [S, V], tokens in the slot's text so far (prompt and answer); needed by the penalty only.
        repetition_penalty: 1 is off.
        temperature: > 0; for 0 use ``greedy``, which ignores top-k and top-p but not the penalty.
        top_k: 0 is off.
        top_p: 1 is off.

    Raises:
        ValueError: a value out of its range, or a penalty without ``seen_SV``.
    """
    x_SV = logits_SV.float()
    if repetition_penalty != 1.0:
        if seen_SV is None:
            raise ValueError("a repetition penalty needs the tokens seen so far")
        x_SV = penalise_repetition(x_SV, seen_SV, repetition_penalty)
    x_SV = apply_temperature(x_SV, temperature)
    return keep_top_p(keep_top_k(x_SV, top_k), top_p)


def penalise_repetition(logits_SV: Tensor, seen_SV: Tensor, penalty: float) -> Tensor:
    """Divides positive and multiplies negative logits of seen tokens by ``penalty`` (CTRL, arXiv 1909.05858, §4.1).

    Raises:
        ValueError: ``penalty`` is not positive.
    """
    if penalty <= 0:
        raise ValueError(f"repetition penalty must be positive, not {penalty}")
    return torch.where(seen_SV, torch.where(logits_SV < 0, logits_SV * penalty, logits_SV / penalty), logits_SV)


def apply_temperature(logits_SV: Tensor, temperature: float) -> Tensor:
    """logits/temperature.

    Raises:
        ValueError: ``temperature`` is not positive.
    """
    if temperature <= 0:
        raise ValueError(f"temperature must be positive here, not {temperature}; 0 is greedy()")
    return logits_SV if temperature == 1.0 else logits_SV / temperature


def keep_top_k(logits_SV: Tensor, k: int) -> Tensor:
    """-inf for all but the k largest logits of a row; those equal to the k-th stay too. 0 keeps all.

    Raises:
        ValueError: k is negative.
    """
    if k < 0:
        raise ValueError(f"top-k must be 0 (off) or more, not {k}")
    if k == 0 or k >= logits_SV.shape[-1]:
        return logits_SV
    return logits_SV.masked_fill(logits_SV < logits_SV.topk(k).values[:, -1:], -torch.inf)


def keep_top_p(logits_SV: Tensor, p: float) -> Tensor:
    """-inf outside the nucleus (arXiv 1904.09751, §3.1): the fewest likeliest tokens whose mass reaches p; 1 keeps all.

    At least one token stays; of equal tokens the one with the smaller id comes first.

    Raises:
        ValueError: p is not in (0, 1].
    """
    if not 0 < p <= 1:
        raise ValueError(f"top-p must be above 0 and at most 1, not {p}")
    if p == 1:
        return logits_SV
    sorted_SV, order_SV = logits_SV.sort(dim=-1, descending=True, stable=True)
    mass_SV = sorted_SV.softmax(-1).double()
    before_SV = mass_SV.cumsum(-1) - mass_SV
    outside_SV = torch.zeros_like(order_SV, dtype=torch.bool).scatter(1, order_SV, before_SV >= p)
    return logits_SV.masked_fill(outside_SV, -torch.inf)
