"""Estimators against the exact divergence of small categorical distributions, by enumeration."""

from __future__ import annotations

import torch
from hypothesis import given, strategies as st
from torch import Tensor

from trimtab.ops.divergence import k1, k2, k2_with_ratio, k3

THETA = torch.tensor([0.3, -1.0, 0.7, 0.1], dtype=torch.float64)
REF = torch.tensor([0.9, 0.2, -0.4, 0.0], dtype=torch.float64).log_softmax(-1)
OLD = torch.tensor([-0.2, 0.5, 0.1, 0.6], dtype=torch.float64).log_softmax(-1)


def exact_kl(logp: Tensor) -> Tensor:
    return torch.nn.functional.kl_div(REF, logp, reduction="sum", log_target=True)


def gradient_of(loss: Tensor, theta: Tensor) -> Tensor:
    return torch.autograd.grad(loss, theta)[0]


def test_k1_and_k3_are_unbiased_and_k2_is_not() -> None:
    logp = THETA.log_softmax(-1)
    kl = exact_kl(logp)
    torch.testing.assert_close((logp.exp() * k1(logp, REF)).sum(), kl)
    torch.testing.assert_close((logp.exp() * k3(logp, REF)).sum(), kl)
    assert abs((logp.exp() * k2(logp, REF)).sum() - kl) > 0.01


def test_values_at_a_known_log_ratio() -> None:
    logp, ref = torch.tensor([0.0, -3.0]), torch.tensor([-2.0, -3.0])
    assert k1(logp, ref).tolist() == [2.0, 0.0]
    assert k2(logp, ref).tolist() == [2.0, 0.0]
    torch.testing.assert_close(k3(logp, ref), torch.tensor([1.1353352832, 0.0]))  # e^-2 + 1


@given(st.floats(-20, 0), st.floats(-20, 0))
def test_k2_and_k3_are_never_negative(logp: float, ref: float) -> None:
    a, b = torch.tensor([logp]), torch.tensor([ref])
    assert k2(a, b).item() >= 0
    assert k3(a, b).item() >= -1e-9


def test_only_k2_has_the_gradient_of_the_divergence() -> None:
    theta = THETA.clone().requires_grad_()
    logp = theta.log_softmax(-1)
    p = logp.detach().exp()  # samples come from π, and sampling has no gradient
    right = gradient_of(exact_kl(logp), theta)
    torch.testing.assert_close(gradient_of((p * k2(theta.log_softmax(-1), REF)).sum(), theta), right)
    none = gradient_of((p * k1(theta.log_softmax(-1), REF)).sum(), theta)
    torch.testing.assert_close(none, torch.zeros_like(none))
    wrong = gradient_of((p * k3(theta.log_softmax(-1), REF)).sum(), theta)
    assert (wrong - right).norm() > 0.1 * right.norm()


def test_k2_with_ratio_has_it_on_samples_of_an_older_policy_too() -> None:
    theta = THETA.clone().requires_grad_()
    right = gradient_of(exact_kl(theta.log_softmax(-1)), theta)
    logp = theta.log_softmax(-1)
    torch.testing.assert_close(gradient_of((OLD.exp() * k2_with_ratio(logp, OLD, REF)).sum(), theta), right)
    without = gradient_of((OLD.exp() * k2(theta.log_softmax(-1), REF)).sum(), theta)
    assert (without - right).norm() > 0.1 * right.norm()


def test_k2_with_ratio_is_k2_on_policy() -> None:
    logp = THETA.log_softmax(-1)
    torch.testing.assert_close(k2_with_ratio(logp, logp, REF), k2(logp, REF))
