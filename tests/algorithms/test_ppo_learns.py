"""PPO reaches optima that are known in closed form."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import toys
from trimtab.algorithms.ppo.config import (
    Complete,
    CriticConfig,
    KLConfig,
    PolicyLossConfig,
    PretrainConfig,
    RolloutConfig,
)
from trimtab.algorithms.ppo.ppo import PPO
from trimtab.batch import Sequence, flatten
from trimtab.models.bundle import Bundle
from trimtab.protocols import TokenPrompt
from trimtab.train.config import OptimizerConfig
from trimtab.train.fit import fit

LR = OptimizerConfig(lr=3e-3, schedule="cosine", warmup=0.05, final=0.05)


def config(**changes: Any) -> Any:
    settings: dict[str, Any] = {
        "shaping": (),
        "ptx": None,
        "truncated": Complete(),
        "policy_loss": PolicyLossConfig(),
        "optimizer": LR,
        "critic": CriticConfig(optimizer=LR),
        "train": toys.train_config(4000, every_s=1e9),
    }
    return toys.ppo_config(**(settings | changes))


@torch.no_grad()
def distribution(bundle: Bundle, prompt: tuple[int, ...]) -> torch.Tensor:
    """Probability of every next token: one text per token, read as its log-probability."""
    rows = [Sequence([*prompt, token], [False] * len(prompt) + [True]) for token in range(toys.VOCABULARY)]
    batch = flatten(rows)
    return bundle(("policy",), batch)["policy"]["logp_T"][batch.last_T()].exp()


@pytest.mark.slow
@pytest.mark.parametrize("place", ["reward", "loss"])
def test_a_bandit_ends_at_the_kl_regularised_optimum(place: Any, tmp_path: Path) -> None:
    """One action: the optimum of E[r] - β KL(π‖π_ref) is π_ref·exp(r/β)/Z, whichever place the KL has."""
    beta, prompt = 0.5, (3, 4)
    value = [((7 * token) % 11) / 10 for token in range(toys.VOCABULARY)]
    bundle = toys.bundle_of("llama", "separate")
    settings = config(
        versions=40,
        epochs=3,
        minibatch=128,
        optimizer=toys.replace(LR, lr=1e-2),
        critic=CriticConfig(optimizer=toys.replace(LR, lr=1e-2)),
        rollout=RolloutConfig(prompts=1, samples=128, max_new_tokens=1, slots=128),
        kl=KLConfig(coef=beta, place=place),
    )
    algorithm = toys.ppo(bundle, settings, scores=None, asked=[TokenPrompt("b", prompt)])
    algorithm.text_scores = lambda completions: [value[c.ids[0]] for c in completions]
    reference = distribution(bundle, prompt)
    optimum = reference * (torch.tensor(value) / beta).exp()
    optimum /= optimum.sum()
    fit(algorithm, toys.loop(tmp_path, settings.train))
    learned = distribution(bundle, prompt)
    start, end = float((reference - optimum).abs().sum() / 2), float((learned - optimum).abs().sum() / 2)
    assert start > 0.2, "the task would be no task"
    assert end < 0.25 * start, f"total variation to the optimum: {start:.3f} -> {end:.3f}"


@pytest.mark.parametrize(
    ("sharing", "width", "lr", "expected"),
    [("separate", 16, 3e-3, 0.8), pytest.param("hydra", 32, 1e-2, 0.5, marks=pytest.mark.slow)],
)
def test_a_sequence_task_is_learned(sharing: str, width: int, lr: float, expected: float, tmp_path: Path) -> None:
    """Reward: the share of token 5 among the sampled ones. Best possible 1, at the start about 1/20.

    A branch under a frozen output embedding of 32 dimensions cannot reach 1, so it is asked for less.
    """
    optimizer = toys.replace(LR, lr=lr)
    settings = config(
        optimizer=optimizer,
        critic=CriticConfig(optimizer=optimizer),
        versions=22,
        epochs=3,
        minibatch=16,
        rollout=RolloutConfig(prompts=48, max_new_tokens=6, slots=48),
        kl=KLConfig(coef=0.005),
    )
    more = [TokenPrompt(f"p{i}", tuple(toys.draw(2 + i % 4, "prompt", i))) for i in range(48)]
    algorithm = toys.ppo(toys.bundle_of("llama", sharing, width=width), settings, asked=more)
    scores: list[float] = []
    algorithm.record = lambda version, completions, made: scores.append(made.metrics["score/mean"])
    fit(algorithm, toys.loop(tmp_path, settings.train))
    assert scores[0] < 0.2
    assert scores[-1] > expected, [round(s, 2) for s in scores[::5]]


def test_pretraining_moves_the_critic_and_not_the_policy(tmp_path: Path) -> None:
    settings = config(versions=2, critic=CriticConfig(optimizer=LR, clip=0.2, pretrain=PretrainConfig(versions=2)))
    algorithm = toys.ppo(toys.bundle_of(), settings)
    before = toys.weights(algorithm)
    fit(algorithm, toys.loop(tmp_path, settings.train))
    moved = {name for name, tensor in toys.weights(algorithm).items() if not torch.equal(tensor, before[name])}
    assert moved and all(name.startswith("value.") for name in moved)


def test_no_gradient_of_the_critic_reaches_policy_or_trunk() -> None:
    algorithm = toys.ppo(toys.bundle_of("llama", "hydra"), config())
    assert isinstance(algorithm, PPO)
    batch = next(iter(algorithm.batches())).batch  # type: ignore[union-attr]
    out = algorithm.bundle(("value",), batch)
    out["value"]["value_T"].sum().backward()
    named = dict(algorithm.bundle.named_parameters())
    touched = {name for name, p in named.items() if p.grad is not None}
    assert touched and all(".value." in f".{name}" for name in touched)
