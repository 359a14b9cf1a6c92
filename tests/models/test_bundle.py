"""Parts of a bundle: what they say, what they share, and where gradients cannot go."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from trimtab.batch import FlatBatch, Sequence
from trimtab.errors import ModelError
from trimtab.models.bundle import Bundle, logit_map_of
from trimtab.models.load import probe
from trimtab.ops.logprob import LogitMap

from .conftest import alone

SHARING = pytest.mark.parametrize("branch", [2, None], ids=["hydra", "separate"])


def bundle_of(lm: PreTrainedModel, branch: int | None) -> Bundle:
    """All four parts of a PPO stage; heads are random, so that every part has gradients to give."""
    bundle = Bundle(lm, probe(lm), branch)
    bundle.add_policy()
    bundle.add_reference()
    bundle.add_scalar("value", "prev", trained=True)
    bundle.add_scalar("reward", "last", trained=False)
    for name in ("value", "reward"):
        torch.manual_seed(4)
        nn.init.normal_(cast(Any, bundle.parts[name]).head.weight, std=0.3)
    return bundle


def gradients(bundle: Bundle) -> dict[str, Tensor]:
    return {name: p.grad for name, p in bundle.named_parameters() if p.grad is not None and bool(p.grad.any())}


@SHARING
def test_parts_say_what_the_model_says(
    family: str, branch: int | None, make: Callable[..., PreTrainedModel], texts: list[Sequence], batch: FlatBatch
) -> None:
    bundle = bundle_of(make(family), branch)
    with torch.no_grad():
        out = bundle(["policy", "reference", "value", "reward"], batch, entropy=True)
    assert torch.equal(out["policy"]["logp_T"], out["reference"]["logp_T"])
    hidden_TD, logp_T = alone(make(family), texts)
    torch.testing.assert_close(out["policy"]["logp_T"], logp_T, atol=1e-5, rtol=1e-5)
    value, reward = cast(Any, bundle.parts["value"]).head, cast(Any, bundle.parts["reward"]).head
    with torch.no_grad():
        expected_T = torch.where(batch.act_T, value(hidden_TD[batch.prev_T]).squeeze(-1), 0.0)
        expected_N = reward(hidden_TD[batch.last_T()]).squeeze(-1)
    torch.testing.assert_close(out["value"]["value_T"], expected_T, atol=2e-5, rtol=1e-5)
    torch.testing.assert_close(out["reward"]["score_N"], expected_N, atol=2e-5, rtol=1e-5)
    entropy_T = out["policy"]["entropy_T"]
    assert bool((entropy_T[batch.act_T] > 0).all()) and not entropy_T[~batch.act_T].any()


@torch.no_grad()
def test_hydra_equals_separate_bit_for_bit(family: str, make: Callable[..., PreTrainedModel], batch: FlatBatch) -> None:
    outs = [bundle_of(make(family), k)(["policy", "reference", "value", "reward"], batch) for k in (1, 3, None)]
    for out in outs[1:]:
        for part, numbers in outs[0].items():
            for name, value in numbers.items():
                assert torch.equal(value, out[part][name]), f"{part} {name}"


@SHARING
def test_no_value_gradient_reaches_policy_reference_or_trunk(
    family: str, branch: int | None, make: Callable[..., PreTrainedModel], batch: FlatBatch
) -> None:
    bundle = bundle_of(make(family), branch)
    bundle(["policy", "value"], batch)["value"]["value_T"].square().sum().backward()
    touched = gradients(bundle)
    assert touched and all(name.startswith("parts.value.") for name in touched)


@SHARING
def test_policy_gradients_stay_in_the_policy(
    family: str, branch: int | None, make: Callable[..., PreTrainedModel], batch: FlatBatch
) -> None:
    bundle = bundle_of(make(family), branch)
    bundle(["policy", "reference", "value", "reward"], batch)["policy"]["logp_T"].sum().backward()
    trained = {id(p) for p in bundle.trained("policy").values()}
    touched = [p for p in bundle.parameters() if p.grad is not None and bool(p.grad.any())]
    assert touched and {id(p) for p in touched} <= trained
    if branch:
        assert bundle.trunk is not None
        below = [*bundle.trunk.parameters(), *cast(nn.Module, bundle.lm.get_output_embeddings()).parameters()]
        assert all(p.grad is None for p in below)


@SHARING
def test_the_reference_does_not_move_when_the_policy_steps(
    family: str, branch: int | None, make: Callable[..., PreTrainedModel], batch: FlatBatch
) -> None:
    """Tied embeddings included: under a trunk they are frozen, without one the reference has its own."""
    bundle = bundle_of(make(family), branch)
    tasks = ["policy", "reference", "value", "reward"]
    with torch.no_grad():
        before = bundle(tasks, batch)
    bundle(["policy"], batch)["policy"]["logp_T"].sum().backward()
    with torch.no_grad():
        for parameter in bundle.trained("policy").values():
            if parameter.grad is not None:
                parameter.sub_(0.5 * parameter.grad.sign())
        after = bundle(tasks, batch)
    assert not torch.equal(before["policy"]["logp_T"], after["policy"]["logp_T"])
    for part, name in (("reference", "logp_T"), ("value", "value_T"), ("reward", "score_N")):
        assert torch.equal(before[part][name], after[part][name]), part


@SHARING
def test_a_stepped_policy_is_the_model_that_samples_and_saves(
    branch: int | None, make: Callable[..., PreTrainedModel], texts: list[Sequence], batch: FlatBatch
) -> None:
    lm = make("llama")
    bundle = bundle_of(lm, branch)
    with torch.no_grad():
        for parameter in bundle.trained("policy").values():
            parameter.add_(0.02)
        logp_T = bundle(["policy"], batch)["policy"]["logp_T"]
        whole = bundle.whole(batch)
    torch.testing.assert_close(alone(lm, texts)[1], logp_T, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(alone(lm, texts)[0], whole, atol=1e-5, rtol=1e-5)


@SHARING
def test_parts_train_disjoint_parameters(family: str, branch: int | None, make: Callable[..., PreTrainedModel]) -> None:
    bundle = bundle_of(make(family), branch)
    policy, value = bundle.trained("policy"), bundle.trained("value")
    assert not {id(p) for p in policy.values()} & {id(p) for p in value.values()}
    assert all(name.startswith("policy.") for name in policy)
    with pytest.raises(ModelError, match="nothing to train"):
        bundle.trained("reward")
    if branch is None:
        assert {id(p) for p in policy.values()} == {id(p) for p in bundle.lm.parameters()}


def test_the_temperature_is_folded_in(make: Callable[..., PreTrainedModel], batch: FlatBatch) -> None:
    lm = make("gemma2")
    bundle = bundle_of(lm, 2)
    with torch.no_grad():
        warm = bundle(["policy"], batch, temperature=2.0)["policy"]["logp_T"]
    lm.set_attn_implementation("eager")
    for row in range(batch.sequences):
        one = batch.select([row])
        logits = lm(input_ids=one.ids_T[None], use_cache=False).logits[0] / 2.0
        logp_T = logits.log_softmax(-1)[one.prev_T, one.ids_T]
        start = int(batch.start_N1[row])
        mine = warm[start : start + one.tokens]
        torch.testing.assert_close(mine[one.act_T], logp_T[one.act_T], atol=1e-5, rtol=1e-5)


def test_dropout_stays_off(make: Callable[..., PreTrainedModel], batch: FlatBatch) -> None:
    lm = make("gpt2")
    assert lm.config.resid_pdrop > 0 and probe(lm) == "flat"
    bundle = Bundle(lm.train(), "flat", 2)
    bundle.add_policy()
    bundle.add_scalar("value", "prev", trained=True)
    nn.init.normal_(cast(Any, bundle.parts["value"]).head.weight)
    one, two = (bundle(["policy", "value"], batch) for _ in range(2))
    assert torch.equal(one["policy"]["logp_T"], two["policy"]["logp_T"])
    assert torch.equal(one["value"]["value_T"], two["value"]["value_T"])


def test_a_reward_part_can_speak_too(make: Callable[..., PreTrainedModel], batch: FlatBatch) -> None:
    """For the language-model regulariser; the borrowed output embedding stays out of what is trained."""
    bundle = bundle_of(make("llama"), 2)
    bundle.add_scalar("judge", "last", trained=True, lm=True)
    out = bundle(["judge", "policy"], batch)
    assert torch.equal(out["judge"]["logp_T"], out["policy"]["logp_T"])
    out["judge"]["logp_T"].sum().backward()
    assert all(name.startswith("parts.judge.") for name in gradients(bundle))
    assert all(bundle.lm.config.vocab_size not in p.shape for p in bundle.trained("judge").values())


def test_fresh_scalars_say_zero(make: Callable[..., PreTrainedModel], batch: FlatBatch) -> None:
    lm = make("llama")
    bundle = Bundle(lm, probe(lm), 2)
    bundle.add_scalar("value", "prev", trained=True)
    assert not bundle(["value"], batch)["value"]["value_T"].any()
    assert cast(Any, bundle.parts["value"]).head.bias is not None


def test_kept_trunk_activations_are_used(make: Callable[..., PreTrainedModel], batch: FlatBatch) -> None:
    bundle = bundle_of(make("llama"), 2)
    trunk_TD = bundle.trunk_TD(batch)
    assert trunk_TD is not None and not trunk_TD.requires_grad and not trunk_TD.is_inference()
    assert bundle.trunk_TD(batch.with_columns(trunk_TD=trunk_TD)) is trunk_TD
    assert bundle_of(make("llama"), None).trunk_TD(batch) is None


def test_families_that_scale_or_cap_their_logits() -> None:
    class Granite:
        logits_scaling = 8.0

    class Cohere:
        logit_scale = 0.0625

    class Gemma2:
        final_logit_softcapping = 30.0

    assert logit_map_of(Granite()) == LogitMap(scale=1 / 8)
    assert logit_map_of(Cohere()) == LogitMap(scale=0.0625)
    assert logit_map_of(Gemma2()) == LogitMap(softcap=30.0)
    assert logit_map_of(object()) == LogitMap()
