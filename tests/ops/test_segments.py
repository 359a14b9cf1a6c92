from __future__ import annotations

import pytest
import torch

from trimtab.ops.segments import count_by_sequence, mean_by_sequence, sum_by_sequence


def test_sum_mean_and_count_of_small_integers() -> None:
    x_T = torch.tensor([1.0, 2.0, 3.0, 10.0, 20.0])
    sequence_T = torch.tensor([0, 0, 0, 2, 2])
    mask_T = torch.tensor([False, True, True, True, False])
    assert sum_by_sequence(x_T, sequence_T, 3).tolist() == [6.0, 0.0, 30.0]
    assert count_by_sequence(mask_T, sequence_T, 3).tolist() == [2, 0, 1]
    mean_N = mean_by_sequence(x_T, mask_T, sequence_T, 3)
    assert mean_N[[0, 2]].tolist() == [2.5, 10.0]
    assert mean_N[1].isnan(), "a sequence without a marked token has no mean"


def test_tokens_may_come_in_any_order() -> None:
    x_T = torch.tensor([1.0, 10.0, 2.0, 20.0])
    assert sum_by_sequence(x_T, torch.tensor([1, 0, 1, 0]), 2).tolist() == [30.0, 3.0]


def test_a_sum_is_the_same_to_the_bit_alone_and_among_others() -> None:
    torch.manual_seed(0)
    lengths = [1, 700, 33, 256]
    parts = [torch.randn(n) * 10 ** torch.randint(-6, 6, (n,)) for n in lengths]
    sequence_T = torch.repeat_interleave(torch.arange(4), torch.tensor(lengths))
    together_N = sum_by_sequence(torch.cat(parts), sequence_T, 4)
    alone = [sum_by_sequence(part, torch.zeros(len(part), dtype=torch.long), 1) for part in parts]
    assert torch.equal(together_N, torch.cat(alone))


def test_accumulates_beyond_float32() -> None:
    x_T = torch.cat([torch.tensor([1e8]), torch.ones(100), torch.tensor([-1e8])])
    assert sum_by_sequence(x_T, torch.zeros(102, dtype=torch.long), 1).item() == 100.0


def test_dtypes() -> None:
    sequence_T = torch.zeros(3, dtype=torch.long)
    assert sum_by_sequence(torch.ones(3), sequence_T, 1).dtype == torch.float32
    assert sum_by_sequence(torch.ones(3, dtype=torch.bfloat16), sequence_T, 1).dtype == torch.float32
    assert sum_by_sequence(torch.ones(3, dtype=torch.float64), sequence_T, 1).dtype == torch.float64


def test_gradients_reach_marked_tokens_only_even_beside_nan() -> None:
    x_T = torch.tensor([2.0, float("nan"), 4.0], requires_grad=True)
    mask_T = torch.tensor([True, False, True])
    mean_N = mean_by_sequence(x_T, mask_T, torch.zeros(3, dtype=torch.long), 1)
    mean_N.sum().backward()
    assert mean_N.item() == 3.0
    assert x_T.grad is not None and x_T.grad.tolist() == [0.5, 0.0, 0.5]


def test_a_sequence_out_of_range_is_refused() -> None:
    with pytest.raises((IndexError, RuntimeError)):
        sum_by_sequence(torch.ones(2), torch.tensor([0, 5]), 2)
