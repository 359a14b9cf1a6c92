from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from trimtab.ops.ranking import centring, pair_loss, soft_pair_loss


def slope(loss_of, at: float) -> float:
    x = torch.tensor([at], dtype=torch.float64, requires_grad=True)
    return torch.autograd.grad(loss_of(x).sum(), x)[0].item()


ZERO = torch.zeros(1, dtype=torch.float64)


def test_known_values() -> None:
    delta = math.log(3)  # σ(Δ) = 3/4
    better_M, worse_M = torch.tensor([0.0, 5.0, 1 + delta]), torch.tensor([0.0, 5.0, 1.0])
    expected = torch.tensor([math.log(2), math.log(2), math.log(4 / 3)])
    torch.testing.assert_close(pair_loss(better_M, worse_M), expected)


def test_only_the_difference_counts_and_a_margin_is_part_of_it() -> None:
    better_M, worse_M = torch.tensor([1.0, -2.0]), torch.tensor([0.5, 1.0])
    torch.testing.assert_close(pair_loss(better_M + 7, worse_M + 7), pair_loss(better_M, worse_M))
    margin_M = torch.tensor([0.5, 2.0])
    torch.testing.assert_close(pair_loss(better_M, worse_M, margin_M), pair_loss(better_M - margin_M, worse_M))
    torch.testing.assert_close(pair_loss(better_M, worse_M, 0.5), pair_loss(better_M, worse_M + 0.5))


@pytest.mark.parametrize("gap", [20.0, 100.0, 1000.0])
def test_the_worst_ranked_pairs_keep_their_gradient(gap: float) -> None:
    assert slope(lambda x: pair_loss(x, ZERO), -gap) == pytest.approx(-1)
    single = torch.tensor([-gap], requires_grad=True)
    loss = pair_loss(single, torch.zeros(1))
    loss.backward()
    assert loss.item() == pytest.approx(gap) and single.grad is not None and single.grad.item() == pytest.approx(-1)


@pytest.mark.parametrize("smoothing", [0.1, 0.25])
def test_smoothing_puts_the_least_loss_at_the_log_odds(smoothing: float) -> None:
    best = math.log((1 - smoothing) / smoothing)
    assert slope(lambda x: pair_loss(x, ZERO, smoothing=smoothing), best) == pytest.approx(0, abs=1e-12)
    assert slope(lambda x: pair_loss(x, ZERO, smoothing=smoothing), best + 1) > 0.01
    assert slope(lambda x: pair_loss(x, ZERO, 2.0, smoothing), best + 2) == pytest.approx(0, abs=1e-12)
    assert slope(lambda x: pair_loss(x, ZERO), best) < -0.05


def test_smoothing_is_the_expected_loss_under_flips() -> None:
    a, b = torch.tensor([0.7]), torch.tensor([-0.4])
    expected = 0.9 * pair_loss(a, b) + 0.1 * pair_loss(b, a)
    torch.testing.assert_close(pair_loss(a, b, smoothing=0.1), expected)


@pytest.mark.parametrize("smoothing", [-0.1, 0.5, 1.0])
def test_smoothing_out_of_range_is_refused(smoothing: float) -> None:
    with pytest.raises(ValueError, match="smoothing"):
        pair_loss(torch.zeros(1), torch.zeros(1), smoothing=smoothing)


def test_soft_labels() -> None:
    a_M, b_M = torch.tensor([0.3, 2.0]), torch.tensor([1.0, -1.0])
    torch.testing.assert_close(soft_pair_loss(a_M, b_M, 1.0), pair_loss(a_M, b_M))
    torch.testing.assert_close(soft_pair_loss(a_M, b_M, 0.0), pair_loss(b_M, a_M))
    torch.testing.assert_close(soft_pair_loss(a_M, b_M, 0.5), soft_pair_loss(b_M, a_M, 0.5))
    target_M = torch.tensor([0.25, 0.5])
    torch.testing.assert_close(soft_pair_loss(a_M, b_M, target_M), soft_pair_loss(b_M, a_M, 1 - target_M))
    assert slope(lambda x: soft_pair_loss(x, ZERO, 0.5), 0.0) == 0
    assert slope(lambda x: soft_pair_loss(x, ZERO, 0.75), math.log(3)) == pytest.approx(0, abs=1e-12)


def test_centring_pulls_the_mean_to_zero_and_leaves_the_difference() -> None:
    better_M: Tensor = torch.tensor([3.0, -1.0, 2.0], requires_grad=True)
    worse_M: Tensor = torch.tensor([1.0, 1.0, -2.0], requires_grad=True)
    loss_M = centring(better_M, worse_M)
    assert loss_M.tolist() == [16.0, 0.0, 0.0]
    loss_M.sum().backward()
    assert better_M.grad is not None and worse_M.grad is not None
    assert better_M.grad.tolist() == worse_M.grad.tolist() == [8.0, 0.0, 0.0]
