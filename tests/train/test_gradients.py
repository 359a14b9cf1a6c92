"""The number of micro-batches, and the order of sequences, change no gradient: parameter by parameter, all stages."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import toys
from trimtab.batch import FlatBatch
from trimtab.protocols import Algorithm, Minibatch
from trimtab.runtime.engine import Engine

STAGES: dict[str, Callable[..., Any]] = {"sft": toys.sft, "reward": toys.reward, "ppo with ptx": toys.ppo}


def one_minibatch(algorithm: Algorithm) -> FlatBatch:
    return next(item.batch for item in algorithm.batches() if isinstance(item, Minibatch))


def gradients(algorithm: Algorithm, batch: FlatBatch, token_budget: int) -> tuple[dict[str, Tensor], int]:
    """Accumulated float32 gradients of a minibatch in micro-batches of at most ``token_budget`` tokens."""
    engine = Engine(algorithm.trainables)
    batch = algorithm.couple(batch)
    totals = algorithm.totals(batch)
    count = 0
    for micro in batch.micro_batches(token_budget):
        loss, _ = algorithm.loss(micro, totals)
        engine.backward(loss)
        count += 1
    found = {name: grad.clone() for name, grad in engine.gradients().items()}
    engine.clear()
    engine.close()
    return found, count


def gap(a: dict[str, Tensor], b: dict[str, Tensor]) -> float:
    """Largest difference of one parameter's gradient, relative to that gradient's norm."""
    assert a.keys() == b.keys() and a
    largest = max(float(x.norm()) for x in a.values())
    return max(float((a[n] - b[n]).norm() / max(float(a[n].norm()), 1e-3 * largest)) for n in a)


def made(stage: str, sharing: str, dtype: torch.dtype, rows: int = 8) -> tuple[Algorithm, FlatBatch]:
    changes: dict[str, Any] = {"minibatch": rows}
    if stage == "reward":
        changes |= {"lm": 0.5, "centring": 0.1, "smoothing": 0.1, "margin": 0.2, "minibatch": 2 * rows}
    if stage == "ppo with ptx":
        changes = {"config": toys.ppo_config(minibatch=rows, train=toys.train_config(1000))}
        changes["config"] = toys.replace(changes["config"], parity=toys.LOOSE)
    # In bfloat16 a gradient of 16 numbers is too few to average its own rounding (2^-9 of each) out.
    width = 16 if dtype == torch.float32 else 64
    algorithm = STAGES[stage](toys.bundle_of("llama", sharing, dtype, width), **changes)
    return algorithm, one_minibatch(algorithm)


@pytest.mark.parametrize("sharing", ["hydra", "separate"])
@pytest.mark.parametrize("stage", sorted(STAGES))
def test_micro_batches_change_no_gradient_in_float32(stage: str, sharing: str) -> None:
    algorithm, batch = made(stage, sharing, torch.float32)
    whole, one = gradients(algorithm, batch, 10_000)
    assert one == 1
    counts = set()
    for budget in (batch.tokens // 2 + 8, batch.tokens // 3 + 8, 1):
        split, count = gradients(algorithm, batch, budget)
        counts.add(count)
        assert gap(whole, split) <= 1e-5, (budget, count)
    assert len(counts) >= 2 and max(counts) == len(batch.units()), "different splits, the finest one unit each"


@pytest.mark.parametrize("stage", sorted(STAGES))
def test_bfloat16_gradients_do_not_drift_with_the_number_of_micro_batches(stage: str) -> None:
    algorithm, batch = made(stage, "hydra", torch.bfloat16, rows=16)
    whole, _ = gradients(algorithm, batch, 10_000)
    few, n_few = gradients(algorithm, batch, batch.tokens // 2 + 8)
    many, n_many = gradients(algorithm, batch, 1)
    assert n_few < n_many
    assert gap(whole, few) <= 5e-3 and gap(whole, many) <= 5e-3
    assert gap(whole, many) <= 2 * gap(whole, few) + 1e-3, "the gap grows with the number of micro-batches"


@pytest.mark.parametrize("stage", sorted(STAGES))
def test_the_order_of_sequences_changes_no_gradient(stage: str) -> None:
    algorithm, batch = made(stage, "hydra", torch.float32)
    straight, _ = gradients(algorithm, batch, 10_000)
    shuffled, _ = gradients(algorithm, batch.select(list(range(batch.sequences))[::-1]), 10_000)
    assert gap(straight, shuffled) <= 1e-5


def test_a_wrong_denominator_would_show() -> None:
    """The check itself: dividing by the micro-batch's own tokens (the usual bug) is far outside the bound."""
    algorithm, batch = made("sft", "separate", torch.float32)
    whole, _ = gradients(algorithm, batch, 10_000)
    engine = Engine(algorithm.trainables)
    parts = list(batch.micro_batches(1))
    for micro in parts:
        loss, _ = algorithm.loss(micro, algorithm.totals(micro))
        engine.backward(loss / len(parts))
    assert gap(whole, engine.gradients()) > 1e-2
