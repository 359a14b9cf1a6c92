"""How per-token losses become one number, in a way that any split into micro-batches leaves alone.

``(token_weights(...) * loss_T).sum() / loss_total(...)``: weights look at the token's own sequence only, the total is
taken once over the whole minibatch. Axes: T token, N sequence.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from trimtab.ops.segments import count_by_sequence

Aggregate = Literal["tokens", "sequences", "constant"]
"""``tokens``: every action counts alike. ``sequences``: every answer does, by the mean over its actions (GRPO's form).
``constant``: sums over answers by a fixed length, unbiased by how long answers are (arXiv 2503.20783)."""


def token_weights(act_T: Tensor, sequence_T: Tensor, n: int, mode: Aggregate) -> Tensor:
    """Weight of each token's loss: float32 [T], 0 where there is no action.

    Args:
        act_T: bool [T].
        sequence_T: int64 [T].
        n: number of sequences.
        mode: ``sequences`` gives 1/(actions of the sequence), the others 1.
    """
    if mode not in ("tokens", "sequences", "constant"):
        raise ValueError(f"unknown aggregation {mode!r}")
    weight_T = act_T.float()
    if mode != "sequences":
        return weight_T
    count_T = count_by_sequence(act_T, sequence_T, n)[sequence_T]
    return weight_T / torch.clamp(count_T, min=1)  # the clamp touches only sequences whose weights are all 0


def loss_total(act_T: Tensor, sequence_T: Tensor, n: int, mode: Aggregate, length: int = 0) -> float:
    """The denominator that goes with ``token_weights``, of these sequences; totals of parts add up.

    ``tokens``: actions. ``sequences``: sequences that have actions. ``constant``: those times ``length``, the longest
    an answer could be (required, > 0).
    """
    if mode not in ("tokens", "sequences", "constant"):
        raise ValueError(f"unknown aggregation {mode!r}")
    if mode == "tokens":
        return float(act_T.sum())
    answers = float((count_by_sequence(act_T, sequence_T, n) > 0).sum())
    if mode == "sequences":
        return answers
    if length <= 0:
        raise ValueError("aggregation 'constant' needs the longest answer's length")
    return answers * length
