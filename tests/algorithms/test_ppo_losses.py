"""Each term of PPO's loss on one batch worked out on paper, and off where its part is absent.

Answer 0 has two actions with advantage 1 and ratios 1.5, 0.5; answer 1 has three with advantage -1 and ratios 1.5, 0.5
and 1. The clipped losses at ε 0.2 are -1.2, -0.5 and 1.5, 0.8, 1.0.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import toys
from algorithms.handmade import END, config
from trimtab.algorithms.ppo import loss as terms
from trimtab.algorithms.ppo.config import (
    AdaptiveKL,
    CriticConfig,
    EntropyConfig,
    KLConfig,
    PolicyLossConfig,
    PPOConfig,
    PTXConfig,
    RolloutConfig,
)
from trimtab.algorithms.ppo.ppo import PPO
from trimtab.batch import FlatBatch, Sequence, flatten, join
from trimtab.errors import RecipeError
from trimtab.ops.aggregate import loss_total
from trimtab.protocols import Boundary, Minibatch, StepReport, Totals
from trimtab.train.config import OptimizerConfig
from trimtab.train.fit import fit

Out = dict[str, dict[str, Tensor]]
RATIOS = [[1.5, 0.5], [1.5, 0.5, 1.0]]
ADVANTAGES = [[1.0, 1.0], [-1.0, -1.0, -1.0]]
FREE, CLIPPED = -1.5 - 0.5 + 1.5 + 0.5 + 1.0, -1.2 - 0.5 + 1.5 + 0.8 + 1.0


def batch_of(**columns: list[list[float]]) -> FlatBatch:
    """Two answers of two and three actions, each after one prompt token; unnamed columns are 0."""
    rows = []
    for row, size in enumerate((2, 3)):
        given = {f"{name}_T": [0.0, *values[row]] for name, values in columns.items()}
        for name in ("old_logp_T", "ref_logp_T", "advantage_T", "old_value_T", "return_T"):
            given.setdefault(name, [0.0] * (size + 1))
        token_columns = {name: torch.tensor(values) for name, values in given.items()}
        rows.append(Sequence([9, *[3] * size], [False] + [True] * size, f"r{row}", None, {}, token_columns))
    return flatten(rows)


def totals_of(batch: FlatBatch, settings: PPOConfig) -> Totals:
    act_T, longest = terms.rl_T(batch), settings.rollout.max_new_tokens
    return {
        "policy": loss_total(act_T, batch.sequence_T, batch.sequences, settings.aggregate, longest),
        "tokens": float(act_T.sum()),
        "ptx_tokens": float(batch.act_T.sum() - act_T.sum()),
    }


def policy_out(batch: FlatBatch, ratios: list[list[float]] = RATIOS) -> Out:
    logp_T = batch["old_logp_T"].clone()
    logp_T[batch.act_T] += torch.tensor([r for row in ratios for r in row]).log()
    return {"policy": {"logp_T": logp_T.requires_grad_(True)}}


def surrogate(**parts: Any) -> tuple[float, dict[str, float]]:
    settings = config(**parts)
    batch = batch_of(advantage=ADVANTAGES, old_logp=[[-1.0, -2.0], [-3.0, -0.5, -1.5]])
    loss, metrics = terms.surrogate(policy_out(batch), batch, totals_of(batch, settings), settings)
    return float(loss.detach()), metrics


# ---- policy


@pytest.mark.parametrize(
    ("part", "total", "clipped"),
    [
        (PolicyLossConfig(), CLIPPED, 2),
        (PolicyLossConfig(clip_low=None, clip_high=None), FREE, 0),
        (PolicyLossConfig(clip_high=0.4), CLIPPED - 0.2, 2),  # -1.4 for -1.2
        (PolicyLossConfig(clip_low=0.4), CLIPPED - 0.2, 2),  # 0.6 for 0.8
        (PolicyLossConfig(clip_high=0.6), CLIPPED - 0.3, 1),  # 1.5 is within 1.6
        (PolicyLossConfig(dual_clip=1.2), CLIPPED - 0.3, 3),  # 1.2 for 1.5
        (PolicyLossConfig(clip_low=None, clip_high=None, dual_clip=1.2), FREE - 0.3, 1),
    ],
)
def test_the_surrogate_and_its_clips(part: PolicyLossConfig, total: float, clipped: int) -> None:
    loss, metrics = surrogate(policy_loss=part)
    assert loss == pytest.approx(total / 5) and metrics["loss/policy"] == pytest.approx(loss)
    assert metrics["clip_fraction/policy"] == pytest.approx(clipped / 5)


@pytest.mark.parametrize(
    ("aggregate", "expected"),
    [
        ("tokens", CLIPPED / 5),
        ("sequences", ((-1.2 - 0.5) / 2 + (1.5 + 0.8 + 1.0) / 3) / 2),
        ("constant", CLIPPED / (2 * 10)),
    ],
)
def test_aggregation(aggregate: Any, expected: float) -> None:
    loss, _ = surrogate(aggregate=aggregate, rollout=RolloutConfig(max_new_tokens=10))
    assert loss == pytest.approx(expected)


def test_totals_are_the_denominators_of_the_aggregation() -> None:
    expected = {"tokens": 5.0, "sequences": 2.0, "constant": 2 * 6.0}
    for aggregate, total in expected.items():
        algorithm = toys.ppo(toys.bundle_of(), toys.ppo_config(aggregate=aggregate))
        assert algorithm.totals(batch_of()) == {"policy": total, "tokens": 5.0, "ptx_tokens": 0.0}


def test_the_distance_to_the_old_policy_is_shown_as_k3() -> None:
    """ρ - 1 - log ρ: 0.5 - log 1.5 and -0.5 + log 2, twice each."""
    _, metrics = surrogate()
    assert metrics["kl/old_k3"] == pytest.approx(2 * (0.5 - math.log(1.5) - 0.5 + math.log(2)) / 5)


# ---- critic


VALUES = [[1.0, 0.0], [0.0, 0.0, 0.0]]
OLD_VALUES = [[0.5, 0.5], [0.0, 0.0, 0.0]]
"""Returns are 0. Kept within 0.2 of the old value: 0.7 for 1.0 (1.0 decides), 0.3 for 0.0 (0.3 decides)."""


@pytest.mark.parametrize(
    ("part", "total", "clipped"),
    [
        (CriticConfig(), 0.5 * 1.0, 0),
        (CriticConfig(clip=0.2), 0.5 * (1.0 + 0.09), 1),
        (CriticConfig(clip=0.4), 0.5 * (1.0 + 0.01), 1),
        (CriticConfig(coef=3.0), 3 * 0.5 * 1.0, 0),
    ],
)
def test_the_value_loss_its_clip_and_its_weight(part: CriticConfig, total: float, clipped: int) -> None:
    settings, batch = config(critic=part), batch_of(old_value=OLD_VALUES)
    value_T = torch.zeros(batch.tokens)
    value_T[batch.act_T] = torch.tensor([v for row in VALUES for v in row])
    out = {"policy": {}, "value": {"value_T": value_T}}
    loss, metrics = terms.value(out, batch, totals_of(batch, settings), settings)
    assert float(loss) == pytest.approx(total / 5) == metrics["loss/value"]
    assert metrics["clip_fraction/value"] == pytest.approx(clipped / 5)
    alone, metrics = terms.value({"value": out["value"]}, batch, totals_of(batch, settings), settings)
    assert float(alone) == pytest.approx(part.coef * 0.5 / 5) and metrics["clip_fraction/value"] == 0.0, "pre-training"


# ---- KL as a loss


LOG_RATIOS = [[0.2, -0.4], [0.6, 0.0, -0.2]]
"""log π - log π_ref, token by token."""


def kl_batch() -> tuple[FlatBatch, Out]:
    batch = batch_of(old_logp=[[-1.0, -1.0], [-1.0, -1.0, -1.0]])
    out = policy_out(batch)
    ref_T = out["policy"]["logp_T"].detach().clone()
    ref_T[batch.act_T] -= torch.tensor([x for row in LOG_RATIOS for x in row])
    return batch.with_columns(ref_logp_T=ref_T), out


def test_a_kl_in_the_loss_has_the_gradient_of_the_divergence() -> None:
    """β·ρ·(log π - log π_ref) / tokens at every action: k2 with the ratio held constant."""
    settings = config(kl=KLConfig(coef=0.5, place="loss"))
    batch, out = kl_batch()
    loss, metrics = terms.kl_term(out, batch, totals_of(batch, settings), settings)
    loss.backward()
    grad_A = out["policy"]["logp_T"].grad[batch.act_T]  # type: ignore[index]
    expected = [0.5 * r * x / 5 for rs, xs in zip(RATIOS, LOG_RATIOS, strict=True) for r, x in zip(rs, xs, strict=True)]
    assert grad_A.tolist() == pytest.approx(expected)
    assert metrics["loss/kl"] == pytest.approx(float(loss.detach()))


def test_an_adaptive_coefficient_reaches_the_loss() -> None:
    settings = toys.ppo_config(kl=KLConfig(coef=0.5, place="loss", adaptive=AdaptiveKL(2.0, 100)), ptx=None)
    algorithm = toys.ppo(toys.bundle_of(), settings)
    batch = minibatch(algorithm)
    batch = batch.with_columns(ref_logp_T=batch["ref_logp_T"] - 0.5 * batch.act_T)
    found = {}
    for beta in (0.5, 1.5):
        algorithm.beta = beta
        found[beta] = algorithm.loss(batch, algorithm.totals(batch))[1]["loss/kl"]
    assert found[0.5] == pytest.approx(0.5 * 0.5 * 0.5**2) and found[1.5] == pytest.approx(3 * found[0.5])


@pytest.mark.parametrize("adaptive", [AdaptiveKL(target=2.0, horizon=100), None])
def test_the_controller_moves_the_coefficient_once_per_rollout(adaptive: AdaptiveKL | None) -> None:
    """A fresh policy has KL 0, under its target by more than a fifth: -0.2 times 8 answers / horizon 100."""
    settings = toys.ppo_config(kl=KLConfig(coef=0.05, adaptive=adaptive), versions=1)
    algorithm = toys.ppo(toys.bundle_of(), settings)
    used = [item.metrics["beta"] for item in algorithm.batches() if isinstance(item, Boundary)]
    assert used == [0.05], "this rollout still had the old one"
    assert algorithm.state_dict()["beta"] == pytest.approx(0.05 * (1 - 0.2 * 8 / 100) if adaptive else 0.05)


# ---- entropy, ptx


def entropy_loss(part: EntropyConfig, mean: float = 0.0) -> tuple[float, list[float]]:
    settings, batch = config(entropy=part), batch_of()
    entropy_T = torch.zeros(batch.tokens)
    entropy_T[batch.act_T] = torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0])
    entropy_T.requires_grad_(True)
    batch = batch.with_columns(mean_entropy_N=torch.full((2,), mean))
    out = {"policy": {"entropy_T": entropy_T}}
    loss, metrics = terms.entropy(out, batch, totals_of(batch, settings), settings)
    loss.backward()
    assert metrics["loss/entropy"] == pytest.approx(float(loss.detach()))
    return float(loss.detach()), entropy_T.grad[batch.act_T].tolist()  # type: ignore[index]


def test_an_entropy_bonus_is_subtracted() -> None:
    """Mean entropy 3, bonus 0.1."""
    loss, grad = entropy_loss(EntropyConfig(bonus=0.1))
    assert loss == pytest.approx(-0.3) and grad == pytest.approx([-0.02] * 5)


@pytest.mark.parametrize(("target", "loss", "slope"), [(2.5, 0.5, 1), (4.0, 1.0, -1)])
def test_an_entropy_target_pulls_from_either_side(target: float, loss: float, slope: int) -> None:
    found, grad = entropy_loss(EntropyConfig(target=target, coef=0.4), mean=3.0)
    assert found == pytest.approx(0.4 * loss) and grad == pytest.approx([slope * 0.4 / 5] * 5)


def test_the_pull_looks_at_the_mean_of_the_whole_minibatch() -> None:
    """Micro-batches of one sequence have entropies on both sides of the target; the sign must still be one."""
    settings = toys.ppo_config(entropy=EntropyConfig(target=1.0, coef=1.0), ptx=None)
    algorithm = toys.ppo(toys.bundle_of(), settings)
    batch = algorithm.couple(minibatch(algorithm))
    out = algorithm.bundle(("policy",), batch, entropy=True)["policy"]["entropy_T"].detach()
    mean = float(out.sum() / batch.act_T.sum())
    assert batch["mean_entropy_N"].tolist() == pytest.approx([mean] * batch.sequences)
    totals = algorithm.totals(batch)
    shares = [algorithm.loss(micro, totals)[1]["loss/entropy"] for micro in batch.micro_batches(1)]
    assert len(shares) == batch.sequences and sum(shares) == pytest.approx(abs(mean - 1.0), rel=1e-5)


def minibatch(algorithm: PPO) -> FlatBatch:
    return next(item.batch for item in algorithm.batches() if isinstance(item, Minibatch))


def test_ptx_is_cross_entropy_beside_an_unchanged_rest() -> None:
    """Two demonstration tokens at -1 and -3 nats, weight 0.5: 0.5·4/2, and the surrogate as without them."""
    settings = config(ptx=PTXConfig(data="d", coef=0.5))
    rl = batch_of(advantage=ADVANTAGES, old_logp=[[-1.0, -2.0], [-3.0, -0.5, -1.5]])
    neutral = {name: torch.zeros(3) for name in rl.columns}
    shown = flatten([Sequence([9, 4, END], [False, True, True], "demo", None, {}, neutral)])
    mixed = join(
        rl.with_columns(ptx_N=torch.zeros(2, dtype=torch.bool)), shown.with_columns(ptx_N=torch.ones(1).bool())
    )
    logp_T = torch.cat([policy_out(rl)["policy"]["logp_T"].detach(), torch.tensor([0.0, -1.0, -3.0])])
    out, totals = {"policy": {"logp_T": logp_T.requires_grad_(True)}}, totals_of(mixed, settings)
    assert totals == {"policy": 5.0, "tokens": 5.0, "ptx_tokens": 2.0}
    loss, metrics = terms.ptx(out, mixed, totals, settings)
    assert float(loss.detach()) == pytest.approx(1.0) == metrics["loss/ptx"]
    loss.backward()
    assert logp_T.grad.tolist() == [0.0] * (rl.tokens + 1) + [-0.25, -0.25]  # type: ignore[union-attr]
    for aggregate in ("tokens", "sequences", "constant"):
        other = toys.replace(settings, aggregate=aggregate)
        with_ptx, _ = terms.surrogate(out, mixed, totals_of(mixed, other), other)
        without, _ = terms.surrogate(policy_out(rl), rl, totals_of(rl, other), other)
        assert float(with_ptx.detach()) == pytest.approx(float(without.detach()))


def test_demonstrations_ride_in_the_same_step_and_teach_the_policy_alone() -> None:
    algorithm = toys.ppo(toys.bundle_of(), toys.ppo_config(ptx=PTXConfig(data="d", coef=0.3, minibatch=2)))
    batch = minibatch(algorithm)
    assert batch["ptx_N"].tolist() == [False] * 4 + [True] * 2
    demo_T = batch["ptx_N"][batch.sequence_T]
    for name in ("advantage_T", "return_T", "old_logp_T", "old_value_T", "ref_logp_T"):
        assert not batch[name][demo_T].any(), f"{name} of a demonstration is neutral"
    totals = algorithm.totals(batch)
    assert totals["tokens"] + totals["ptx_tokens"] == float(batch.act_T.sum()) and totals["ptx_tokens"] > 0

    shown = batch.select([4, 5])
    loss, metrics = algorithm.loss(shown, totals)
    loss.backward()
    for name, parameter in algorithm.trainables["policy"].parameters.items():
        assert parameter.grad is not None and parameter.grad.any(), name
    for name, parameter in algorithm.trainables["critic"].parameters.items():
        assert parameter.grad is None or not parameter.grad.any(), name
    assert metrics["loss/policy"] == metrics["loss/value"] == 0.0 and metrics["loss/ptx"] > 0
    half = toys.replace(algorithm.config, ptx=PTXConfig(data="d", coef=0.15, minibatch=2))
    algorithm.config = half
    assert algorithm.loss(shown, totals)[1]["loss/ptx"] == pytest.approx(metrics["loss/ptx"] / 2)


def test_ptx_without_demonstrations_is_refused() -> None:
    algorithm = toys.ppo(toys.bundle_of())
    with pytest.raises(RecipeError, match="has no demonstrations"):
        PPO(
            algorithm.bundle,
            algorithm.sampler,
            algorithm.prompts,
            algorithm.config,
            seed=1,
            stage="ppo",
            end_id=END,
        )


# ---- how the updates of a rollout are taken


def test_target_kl_ends_the_epochs_of_a_rollout() -> None:
    def taken(target: float | None, seen: float) -> int:
        algorithm = toys.ppo(toys.bundle_of(), toys.ppo_config(target_kl=target, versions=1))
        count = 0
        for item in algorithm.batches():
            if isinstance(item, Boundary):
                assert item.metrics["updates"] == count
            else:
                count += 1
                algorithm.observe(StepReport(0, {"kl/old_k3": seen}, {}, {}, 1))
        return count

    assert taken(0.1, seen=0.2) == 1
    assert taken(0.1, seen=0.05) == 2 * 2, "two epochs of eight answers in minibatches of four"
    assert taken(None, seen=9.0) == 2 * 2


def test_policy_and_critic_have_their_own_rates_and_clips(tmp_path: Path) -> None:
    critic = OptimizerConfig(lr=7e-3, schedule="constant", warmup=0.0, clip_norm=None, weight_decay=0.1)
    settings = toys.ppo_config(versions=1, epochs=1, critic=CriticConfig(optimizer=critic))
    algorithm = toys.ppo(toys.bundle_of(), settings)
    policy, value = algorithm.trainables["policy"], algorithm.trainables["critic"]
    assert (policy.schedule.lr, policy.clip_norm, policy.weight_decay) == (3e-3, 1.0, 0.0)
    assert (value.schedule.lr, value.clip_norm, value.weight_decay) == (7e-3, None, 0.1)
    assert not policy.parameters.keys() & value.parameters.keys()
    seen: list[StepReport] = []
    algorithm.observe = seen.append  # type: ignore[method-assign]
    fit(algorithm, toys.loop(tmp_path, settings.train))
    for report in seen:
        assert report.lrs == {"policy": 3e-3, "critic": 7e-3}
        assert report.grad_norms.keys() == {"policy", "critic"}


# ---- off is absent


BARE = {"loss/policy", "clip_fraction/policy", "kl/old_k3", "loss/value", "clip_fraction/value"}
PARTS: dict[str, tuple[dict[str, Any], set[str]]] = {
    "nothing": ({}, set()),
    "kl in the reward": ({"kl": KLConfig(0.1)}, set()),
    "kl in the loss": ({"kl": KLConfig(0.1, "loss")}, {"loss/kl"}),
    "entropy": ({"entropy": EntropyConfig(bonus=0.1)}, {"loss/entropy"}),
    "ptx": ({"ptx": PTXConfig("d")}, {"loss/ptx"}),
}


@pytest.mark.parametrize("name", PARTS)
def test_a_part_that_is_absent_is_not_computed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    parts, more = PARTS[name]
    settings = toys.ppo_config(**({"kl": None, "ptx": None, "shaping": ()} | parts))
    algorithm = toys.ppo(toys.bundle_of(), settings)
    batch = minibatch(algorithm)
    assert ("ptx_N" in batch) == (name == "ptx")

    def forbidden(*args: Any) -> Any:
        raise AssertionError("a term whose part is absent was computed")

    for term, (present, _) in terms.TERMS.items():
        if not present(settings):
            monkeypatch.setitem(terms.TERMS, term, (present, forbidden))
    asked: list[bool] = []
    algorithm.bundle.register_forward_pre_hook(
        lambda m, args, kwargs: asked.append(kwargs["entropy"]), with_kwargs=True
    )
    _, metrics = algorithm.loss(batch, algorithm.totals(batch))
    assert metrics.keys() == BARE | more
    assert asked == [name == "entropy"], "entropies cost a pass over the vocabulary"
