"""Masters, accumulators, schedules and norms."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from trimtab.protocols import Schedule, Trainable
from trimtab.runtime.engine import Engine, rate


def group(parameter: nn.Parameter, lr: float = 0.1, clip: float | None = None, **more: float) -> Trainable:
    return Trainable({"w": parameter}, Schedule(lr), clip_norm=clip, **more)  # type: ignore[arg-type]


def test_warm_up_rises_to_the_peak_and_cosine_falls_to_its_end() -> None:
    schedule = Schedule(lr=1.0, kind="cosine", warmup=4, updates=14, final=0.1)
    assert [round(rate(schedule, u), 3) for u in range(4)] == [0.2, 0.4, 0.6, 0.8]
    assert rate(schedule, 4) == 1.0
    assert rate(schedule, 9) == pytest.approx(0.55)
    assert rate(schedule, 14) == rate(schedule, 50) == pytest.approx(0.1)


def test_linear_and_constant() -> None:
    assert rate(Schedule(2.0, "linear", 0, 10, 0.0), 5) == pytest.approx(1.0)
    assert rate(Schedule(2.0, "constant", 0, 10), 9) == 2.0


def test_a_learning_rate_below_bfloat16_resolution_still_moves_the_weights() -> None:
    """Pure bfloat16 AdamW loses 1e-6 beside a weight of 1; float32 masters add the steps up until they show."""
    weight = nn.Parameter(torch.ones(4, dtype=torch.bfloat16))
    engine = Engine({"policy": group(weight, lr=1e-4)})
    for _ in range(60):
        engine.backward((weight.float() * 3).sum())
        engine.step(engine.grad_norms())
    assert engine.tensors()["master"]["w"].tolist() == pytest.approx([1 - 60e-4] * 4, rel=1e-4)
    assert (weight < 1).all()


def test_gradients_are_accumulated_in_float32() -> None:
    """256 + 1 is 256 in bfloat16; the sum of 1 x 256 and 1 x 8 micro-batches of 1 is 264 here."""
    weight = nn.Parameter(torch.zeros(1, dtype=torch.bfloat16))
    engine = Engine({"policy": group(weight)})
    engine.backward((weight.float() * 256).sum())
    for _ in range(8):
        engine.backward((weight.float() * 1).sum())
    assert engine.gradients()["w"].item() == 264.0


def test_each_trainable_is_clipped_by_its_own_norm() -> None:
    policy, critic = nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(1))
    engine = Engine(
        {
            "policy": Trainable({"p": policy}, Schedule(0.1), clip_norm=1.0),
            "critic": Trainable({"c": critic}, Schedule(0.1), clip_norm=1.0),
        }
    )
    engine.backward((policy * 0.5).sum() + (critic * 1000).sum())
    norms = engine.grad_norms()
    assert norms == {"policy": 0.5, "critic": 1000.0}
    engine.groups["critic"].adamw.step = lambda: None  # type: ignore[method-assign,assignment]
    engine.groups["policy"].adamw.step = lambda: None  # type: ignore[method-assign,assignment]
    for name, norm in norms.items():
        engine.groups[name].step(norm)
    assert engine.gradients()["p"].item() == 0.5, "a large critic gradient must not shrink the policy's"
    assert engine.gradients()["c"].item() == pytest.approx(1.0)


def test_a_frozen_trainable_does_not_move() -> None:
    policy, critic = nn.Parameter(torch.ones(1)), nn.Parameter(torch.ones(1))
    groups = {"policy": Trainable({"p": policy}, Schedule(0.1)), "critic": Trainable({"c": critic}, Schedule(0.1))}
    engine = Engine(groups)
    for frozen in (False, True):
        groups["policy"].frozen = frozen
        before = policy.item()
        engine.backward((policy + critic).sum())
        engine.step(engine.grad_norms())
        assert (policy.item() == before) is frozen
    assert engine.state() == {"policy": {"updates": 1}, "critic": {"updates": 2}}


def test_state_round_trip_continues_bit_for_bit() -> None:
    def run(engine: Engine, weight: nn.Parameter, steps: int) -> None:
        for _ in range(steps):
            engine.backward((weight.float() ** 2).sum())
            engine.step(engine.grad_norms())

    torch.manual_seed(1)
    start = torch.randn(5).bfloat16()
    first = nn.Parameter(start.clone())
    unbroken = Engine({"policy": group(first, weight_decay=0.1)})
    run(unbroken, first, 3)
    saved = {k: {n: t.clone() for n, t in v.items()} for k, v in unbroken.tensors().items()}, unbroken.state()
    run(unbroken, first, 3)

    second = nn.Parameter(start.clone())
    resumed = Engine({"policy": group(second, weight_decay=0.1)})
    resumed.load(*saved)
    run(resumed, second, 3)
    assert torch.equal(first, second)
    assert torch.equal(unbroken.tensors()["master"]["w"], resumed.tensors()["master"]["w"])
