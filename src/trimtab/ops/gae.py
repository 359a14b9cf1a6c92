"""Generalised advantage estimation over the actions of a flat batch (arXiv 1506.02438, eq. 16).

Axes: T token, N sequence, A action of a sequence, in order.
"""

from __future__ import annotations

import torch
from torch import Tensor

from trimtab.ops.segments import count_by_sequence


def gae(
    reward_T: Tensor, value_T: Tensor, act_T: Tensor, sequence_T: Tensor, n: int, gamma: float, lam: float
) -> tuple[Tensor, Tensor]:
    """δ_t = r_t + γ V_{t+1} - V_t,  A_t = δ_t + γλ A_{t+1},  R_t = A_t + V_t.

    t runs over the actions of one sequence only: "t + 1" is its next action, however many other tokens (a user's
    turn) lie between. The value after a sequence's last action is 0: an answer ends there, truncated or not.

    Args:
        reward_T: [T], reward of taking action t; 0 where there is no action.
        value_T: [T], V(s_t), the value before action t; not read where there is no action.
        act_T: bool [T]. Actions of a sequence need not be contiguous.
        sequence_T: int64 [T].
        n: number of sequences; one without actions gets zeros.
        gamma: discount per action, 0..1.
        lam: λ, 0 (one step) .. 1 (Monte Carlo).

    Returns:
        (advantage_T, return_T), float32 [T], without gradient, zero where there is no action. A sequence's numbers do
        not depend, to the bit, on the others in the batch.

    Raises:
        ValueError: a reward lies where there is no action (it would be lost).
    """
    reward_T, value_T = reward_T.detach().float(), value_T.detach().float()
    stray = (reward_T != 0) & ~act_T
    if bool(stray.any()):
        at = int(stray.nonzero()[0])
        raise ValueError(f"{int(stray.sum())} rewards lie on tokens that are no actions (first: token {at})")

    at_A = act_T.nonzero().squeeze(-1)
    at_A = at_A[torch.sort(sequence_T[at_A], stable=True).indices]
    row_A = sequence_T[at_A]
    count_N = count_by_sequence(act_T, sequence_T, n)
    column_A = torch.arange(len(at_A), device=at_A.device) - (count_N.cumsum(0) - count_N)[row_A]
    width = int(count_N.max()) if n else 0

    # One column of zeros at the end is the state after the last action; shorter rows continue in zeros likewise.
    reward_NA = reward_T.new_zeros(n, width).index_put((row_A, column_A), reward_T[at_A])
    value_NA = value_T.new_zeros(n, width + 1).index_put((row_A, column_A), value_T[at_A])
    delta_NA = reward_NA + gamma * value_NA[:, 1:] - value_NA[:, :-1]
    running_N = reward_T.new_zeros(n)
    columns: list[Tensor] = []
    for a in reversed(range(width)):
        running_N = delta_NA[:, a] + gamma * lam * running_N
        columns.append(running_N)

    advantage_T = torch.zeros_like(reward_T)
    return_T = torch.zeros_like(reward_T)
    if columns:
        advantage_A = torch.stack(columns[::-1], dim=1)[row_A, column_A]
        advantage_T[at_A] = advantage_A
        return_T[at_A] = advantage_A + value_T[at_A]
    return advantage_T, return_T
