from __future__ import annotations

import pytest
import torch
from torch import Tensor

from trimtab.ops.gae import gae


def one(rewards: list[float], values: list[float], gamma: float, lam: float) -> tuple[list[float], list[float]]:
    """One sequence: a prompt token, then actions only."""
    n = len(rewards)
    act_T = torch.tensor([False] + [True] * n)
    zero = torch.zeros(n + 1, dtype=torch.long)
    advantage_T, return_T = gae(torch.tensor([0.0, *rewards]), torch.tensor([9.0, *values]), act_T, zero, 1, gamma, lam)
    assert advantage_T[0] == return_T[0] == 0
    return advantage_T[1:].tolist(), return_T[1:].tolist()


def test_monte_carlo_is_reward_to_go_minus_value() -> None:
    advantage, returns = one([1, 0, 4], [2, 3, 5], gamma=1, lam=1)
    assert returns == [5, 4, 4]
    assert advantage == [3, 1, -1]


def test_one_step_is_the_temporal_difference_with_value_zero_at_the_end() -> None:
    advantage, returns = one([1, 0, 4], [2, 3, 5], gamma=0.5, lam=0)
    assert advantage == [1 + 1.5 - 2, 2.5 - 3, 4 - 5]
    assert returns == [2.5, 2.5, 4]


def test_geometric_sum() -> None:
    advantage, _ = one([1, 1, 1, 1], [0, 0, 0, 0], gamma=1, lam=0.5)
    assert advantage == [1.875, 1.75, 1.5, 1]


@pytest.mark.parametrize("lam", [0.0, 0.3, 0.95, 1.0])
def test_a_critic_that_knows_the_future_leaves_no_advantage(lam: float) -> None:
    rewards = [0.25, -1.0, 0.0, 2.0]
    advantage, returns = one(rewards, [1.25, 1.0, 2.0, 2.0], gamma=1, lam=lam)
    assert advantage == [0, 0, 0, 0]
    assert returns == [1.25, 1.0, 2.0, 2.0]


def test_discounted_return_does_not_depend_on_the_critic_at_lambda_one() -> None:
    _, with_zero = one([1, 2, 3], [0, 0, 0], gamma=0.5, lam=1)
    _, with_other = one([1, 2, 3], [8, -4, 2], gamma=0.5, lam=1)
    assert with_zero == with_other == [1 + 1 + 0.75, 2 + 1.5, 3]


def batch(seed: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor, list[slice]]:
    """Five sequences, actions scattered (several turns); the third has none."""
    generator = torch.Generator().manual_seed(seed)
    lengths = [6, 1, 9, 4, 17]
    size = sum(lengths)
    sequence_T = torch.repeat_interleave(torch.arange(5), torch.tensor(lengths))
    act_T = torch.rand(size, generator=generator) < 0.6
    act_T[sequence_T == 2] = False
    reward_T = torch.where(act_T, torch.randn(size, generator=generator), 0.0)
    value_T = torch.where(act_T, torch.randn(size, generator=generator), float("nan"))
    ends = torch.tensor(lengths).cumsum(0).tolist()
    return reward_T, value_T, act_T, sequence_T, [slice(e - n, e) for e, n in zip(ends, lengths, strict=True)]


def test_gaps_between_actions_do_not_count() -> None:
    reward_T, value_T, act_T, sequence_T, spans = batch()
    advantage_T, return_T = gae(reward_T, value_T, act_T, sequence_T, 5, 0.9, 0.8)
    for span in spans:
        taken = act_T[span]
        if taken.any():
            advantage, returns = one(reward_T[span][taken].tolist(), value_T[span][taken].tolist(), 0.9, 0.8)
            assert advantage_T[span][taken].tolist() == advantage
            assert return_T[span][taken].tolist() == returns
    assert not advantage_T[~act_T].any() and not return_T[~act_T].any()


def test_other_sequences_and_their_order_change_nothing_to_the_bit() -> None:
    reward_T, value_T, act_T, sequence_T, spans = batch()
    together_T, _ = gae(reward_T, value_T, act_T, sequence_T, 5, 0.99, 0.95)
    order = [4, 2, 0, 3, 1]
    take = torch.cat([torch.arange(spans[s].start, spans[s].stop) for s in order])
    renamed_T = torch.repeat_interleave(torch.arange(5), torch.tensor([spans[s].stop - spans[s].start for s in order]))
    shuffled_T, _ = gae(reward_T[take], value_T[take], act_T[take], renamed_T, 5, 0.99, 0.95)
    assert torch.equal(shuffled_T, together_T[take])


def test_tokens_of_sequences_may_interleave() -> None:
    reward_T, value_T, act_T, sequence_T, spans = batch()
    whole_T, _ = gae(reward_T, value_T, act_T, sequence_T, 5, 0.99, 0.95)
    place_T = torch.rand(len(act_T), generator=torch.Generator().manual_seed(1))
    layout = torch.argsort(torch.cat([place_T[span].sort().values for span in spans]))  # each keeps its own order
    assert not torch.equal(sequence_T[layout], sequence_T)
    got_T, _ = gae(reward_T[layout], value_T[layout], act_T[layout], sequence_T[layout], 5, 0.99, 0.95)
    assert torch.equal(got_T, whole_T[layout])


def test_no_gradient_and_float32() -> None:
    reward_T, value_T, act_T, sequence_T, _ = batch()
    advantage_T, return_T = gae(reward_T, value_T.bfloat16().requires_grad_(), act_T, sequence_T, 5, 1, 0.9)
    assert not advantage_T.requires_grad and not return_T.requires_grad
    assert advantage_T.dtype == return_T.dtype == torch.float32


def test_no_actions_at_all() -> None:
    advantage_T, return_T = gae(
        torch.zeros(3), torch.ones(3), torch.zeros(3, dtype=torch.bool), torch.tensor([0, 0, 1]), 2, 1, 1
    )
    assert advantage_T.tolist() == return_T.tolist() == [0, 0, 0]


def test_a_reward_where_nothing_was_done_is_refused() -> None:
    act_T = torch.tensor([False, True, False])
    with pytest.raises(ValueError, match=r"1 rewards lie on tokens that are no actions \(first: token 2\)"):
        gae(torch.tensor([0.0, 0.0, 1.0]), torch.zeros(3), act_T, torch.zeros(3, dtype=torch.long), 1, 1, 1)
