"""Chunked log-probabilities and their gradients against the naive formula."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from trimtab.ops.logprob import LogitMap, token_logprob

A, D, V = 13, 6, 29
CASES: dict[str, dict[str, Any]] = {
    "plain": {},
    "temperature": {"temperature": 0.7},
    "softcap": {"logit_map": LogitMap(softcap=1.5)},
    "scale": {"logit_map": LogitMap(scale=0.25)},
    "everything": {"temperature": 1.9, "logit_map": LogitMap(scale=1.5, softcap=2.0)},
}


def inputs(bias: bool = True, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor | None, Tensor]:
    generator = torch.Generator().manual_seed(5)
    hidden = torch.randn(A, D, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()
    weight = torch.randn(V, D, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()
    shift = torch.randn(V, generator=generator, dtype=torch.float64).to(dtype).requires_grad_() if bias else None
    return hidden, weight, shift, torch.randint(0, V, (A,), generator=generator)


def naive(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    target: Tensor,
    temperature: float,
    scale: float,
    cap: float | None,
) -> tuple[Tensor, Tensor]:
    logits = scale * (hidden @ weight.T + (0 if bias is None else bias))
    if cap is not None:
        logits = cap * torch.tanh(logits / cap)
    logp = torch.log_softmax(logits / temperature, -1)
    return logp.gather(-1, target[:, None]).squeeze(-1), -(logp.exp() * logp).sum(-1)


def truth(case: dict[str, Any], *tensors: Any) -> tuple[Tensor, Tensor]:
    mapped = case.get("logit_map", LogitMap())
    doubles = [t.detach().double().requires_grad_() if t is not None and t.is_floating_point() else t for t in tensors]
    out = naive(*doubles, case.get("temperature", 1.0), mapped.scale, mapped.softcap)
    return out, [t for t in doubles if t is not None and t.is_floating_point()]  # type: ignore[return-value]


def test_three_words_by_hand() -> None:
    hidden, weight = torch.tensor([[1.0]]), torch.log(torch.tensor([[1.0], [2.0], [5.0]]))
    logp, entropy = token_logprob(hidden, weight, None, torch.tensor([2]), entropy=True)
    assert logp.item() == pytest.approx(math.log(5 / 8), abs=1e-6)
    assert entropy is not None
    assert entropy.item() == pytest.approx(-sum(p * math.log(p) for p in (1 / 8, 2 / 8, 5 / 8)), abs=1e-6)


def test_entropy_is_not_computed_unless_asked_for() -> None:
    assert token_logprob(*inputs())[1] is None


@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
@pytest.mark.parametrize("name", CASES)
def test_values_and_gradients_equal_the_naive_formula(name: str, bias: bool) -> None:
    case = CASES[name]
    tensors = inputs(bias)
    logp, entropy = token_logprob(*tensors, **case, chunk=4, entropy=True)
    assert entropy is not None
    (true_logp, true_entropy), leaves = truth(case, *tensors)
    torch.testing.assert_close(logp.double(), true_logp, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(entropy.double(), true_entropy, atol=1e-5, rtol=1e-5)
    left, right = torch.linspace(-1, 2, A), torch.linspace(1, -0.5, A)
    (logp * left + entropy * right).sum().backward()
    (true_logp * left + true_entropy * right).sum().backward()
    ours = [t.grad for t in tensors if t is not None and t.is_floating_point()]
    for mine, leaf in zip(ours, leaves, strict=True):
        assert mine is not None
        torch.testing.assert_close(mine.double(), leaf.grad, atol=2e-5, rtol=2e-5)


@pytest.mark.parametrize("name", CASES)
def test_chunk_size_changes_nothing(name: str) -> None:
    results = []
    for chunk in (1, 4, A, 1000):
        tensors = inputs()
        logp, entropy = token_logprob(*tensors, **CASES[name], chunk=chunk, entropy=True)
        assert entropy is not None
        (logp.sum() - entropy.sum()).backward()
        grads = [t.grad for t in tensors if t is not None and t.is_floating_point()]
        results.append([logp.detach(), entropy.detach(), *grads])
    for other in results[1:]:
        for one, two in zip(results[0], other, strict=True):
            torch.testing.assert_close(one, two, atol=2e-5, rtol=2e-5)


def test_only_asked_gradients_are_made() -> None:
    hidden, weight, bias, target = inputs()
    assert bias is not None
    weight.requires_grad_(False)
    bias.requires_grad_(False)
    token_logprob(hidden, weight, bias, target)[0].sum().backward()
    assert hidden.grad is not None and weight.grad is None and bias.grad is None


def test_gradients_of_the_entropy_alone_leave_the_target_out() -> None:
    grads = []
    for shift in (0, 1):
        hidden, weight, bias, target = inputs()
        entropy = token_logprob(hidden, weight, bias, (target + shift) % V, entropy=True)[1]
        assert entropy is not None
        entropy.sum().backward()
        grads.append(hidden.grad)
    torch.testing.assert_close(grads[0], grads[1])


def test_bfloat16_is_reduced_in_float32() -> None:
    hidden, weight, bias, target = inputs(dtype=torch.bfloat16)
    logp, entropy = token_logprob(hidden, weight, bias, target, chunk=5, entropy=True)
    assert logp.dtype == torch.float32 and entropy is not None and entropy.dtype == torch.float32
    assert bias is not None
    logits = torch.nn.functional.linear(hidden, weight, bias).double()  # rounded once, to bfloat16, like ours
    expected = logits.log_softmax(-1).gather(-1, target[:, None]).squeeze(-1)
    torch.testing.assert_close(logp.double(), expected, atol=1e-5, rtol=1e-5)
    logp.sum().backward()
    assert hidden.grad is not None and hidden.grad.dtype == torch.bfloat16


def test_no_actions_give_no_numbers() -> None:
    hidden, weight, bias, target = inputs()
    logp, entropy = token_logprob(hidden[:0], weight, bias, target[:0], entropy=True)
    assert logp.shape == (0,) and entropy is not None and entropy.shape == (0,)
    logp.sum().backward()
    assert hidden.grad is not None and not hidden.grad.any()


def test_second_derivatives_are_refused_rather_than_wrong() -> None:
    hidden, weight, bias, target = inputs()
    (grad,) = torch.autograd.grad(token_logprob(hidden, weight, bias, target)[0].sum(), hidden, create_graph=True)
    with pytest.raises(RuntimeError):
        grad.sum().backward()


def test_the_whole_matrix_never_exists(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    original = torch.nn.functional.linear

    def spy(*args: Any) -> Tensor:
        out = original(*args)
        seen.append(out.shape[0])
        return out

    monkeypatch.setattr(torch.nn.functional, "linear", spy)
    token_logprob(*inputs(), chunk=4)[0].sum().backward()
    assert seen == [4, 4, 4, 1] * 2
