"""Adapters: twins of one base that share its tensors, start as nothing, learn alone, and are saved as PEFT's own."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from peft import PeftModel
from torch import Tensor, nn
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from trimtab.batch import FlatBatch
from trimtab.errors import ModelError
from trimtab.models.bundle import Bundle
from trimtab.models.export import adapter_of, merged_decoder, save_lm, save_reward
from trimtab.models.load import load_lm, load_reward, load_reward_on, probe
from trimtab.models.lora import adapters, matrices
from trimtab.protocols import LoRASpec, ModelSpec, SamplingParams, StreamKey, TokenPrompt
from trimtab.sampling.local import LocalSampler

SPEC = LoRASpec(r=3, alpha=6.0)
FAMILIES = ("bloom", "gpt2", "llama", "opt")


def bundle_of(lm: PreTrainedModel, seed: int = 1, spec: LoRASpec = SPEC) -> Bundle:
    bundle = Bundle(lm, probe(lm), None, spec, seed)
    bundle.add_policy()
    bundle.add_reference()
    bundle.add_scalar("reward", "last", trained=True)
    bundle.add_scalar("value", "prev", trained=True)
    return bundle


@torch.no_grad()
def stir(bundle: Bundle, *parts: str) -> None:
    """Adapters and heads as after some training."""
    torch.manual_seed(3)
    for part in parts:
        for parameter in bundle.trained(part).values():
            parameter.add_(0.1 * torch.randn_like(parameter))


def tensors(module: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@torch.no_grad()
def test_a_fresh_adapter_is_nothing(name: str, dtype: Any, make: Callable[..., Any], batch: FlatBatch) -> None:
    lm = make(name, dtype)
    plain = Bundle(lm, probe(lm), None)
    plain.add_policy()
    out = bundle_of(make(name, dtype))(("policy", "reference"), batch)
    expected = plain(("policy",), batch)["policy"]["logp_T"]
    assert torch.equal(out["policy"]["logp_T"], expected)
    assert torch.equal(out["reference"]["logp_T"], expected)


@pytest.mark.parametrize("name", FAMILIES)
def test_parts_learn_alone_in_one_backward_pass(name: str, make: Callable[..., Any], batch: FlatBatch) -> None:
    lm = make(name)
    before = tensors(lm)
    bundle = bundle_of(lm)
    stir(bundle, "policy", "value", "reward")
    out = bundle(("policy", "value", "reference"), batch)
    (out["policy"]["logp_T"].sum() + out["value"]["value_T"].sum()).backward()
    alone = bundle(("policy",), batch)["policy"]["logp_T"]
    grads = torch.autograd.grad(alone.sum(), list(bundle.trained("policy").values()))
    for parameter, grad in zip(bundle.trained("policy").values(), grads, strict=True):
        assert parameter.grad is not None and torch.equal(parameter.grad, grad)
    assert all(p.grad is not None and bool((p.grad != 0).any()) for p in bundle.trained("value").values())
    assert all(p.grad is None for p in bundle.trained("reward").values()), "a part that was not asked learned"
    assert all(p.grad is None and not p.requires_grad for p in lm.parameters()), "the base is frozen"
    assert all(torch.equal(tensor, before[key]) for key, tensor in lm.state_dict().items())


def test_what_is_trained_is_the_adapters_and_a_head(make: Callable[..., Any]) -> None:
    lm = make("llama")
    bundle = bundle_of(lm)
    matrix_count = 4 * len(matrices(bundle.whole.decoder))
    assert len(bundle.trained("policy")) == 2 * matrix_count
    assert len(bundle.trained("value")) == 2 * matrix_count + 2
    names = [name for part in ("policy", "value", "reward") for name in bundle.trained(part)]
    assert len(names) == len(set(names)), "a checkpoint keeps tensors by name"
    own = {id(p) for part in ("policy", "value", "reward") for p in bundle.trained(part).values()}
    base = {id(p) for p in lm.parameters()}
    assert len(own) == len(names) and not own & base
    assert {id(p) for p in bundle.parameters()} == own | base, "the base is there once"


def test_targets_choose_the_matrices(make: Callable[..., Any]) -> None:
    bundle = bundle_of(make("llama"), spec=LoRASpec(r=2, targets=("q_proj", "down_proj")))
    paths = [path.rpartition(".")[2] for path, _ in adapters(cast(Any, bundle.parts["policy"]).body.decoder)]
    assert sorted(set(paths)) == ["down_proj", "q_proj"] and len(paths) == 8
    with pytest.raises(ModelError, match="c_attn, which LlamaModel's layers do not have") as refused:
        bundle_of(make("llama"), spec=LoRASpec(targets=("q_proj", "c_attn")))
    assert "q_proj" in refused.value.fix


def test_where_adapters_start_is_named_and_drawn_from_nothing_else(make: Callable[..., Any]) -> None:
    one = Bundle(make("llama"), "flat", None, SPEC, 1)
    torch.manual_seed(1)
    state = torch.get_rng_state()
    one.add_policy()
    assert torch.equal(torch.get_rng_state(), state)
    one.add_scalar("value", "prev", trained=True)
    torch.manual_seed(2)
    again, other = bundle_of(make("llama")), bundle_of(make("llama"), seed=2)
    same = [torch.equal(a, b) for a, b in zip(one.trained("policy").values(), again.trained("policy").values())]  # noqa: B905
    assert all(same)
    first = next(iter(one.trained("policy").values()))
    assert not torch.equal(first, next(iter(other.trained("policy").values())))
    assert not torch.equal(first, next(iter(one.trained("value").values()))), "each part has a stream of its own"
    assert float(first.detach().abs().max()) <= first.shape[1] ** -0.5
    assert float(first.detach().std()) == pytest.approx((first.shape[1] * 3) ** -0.5, rel=0.3)


def test_branch_and_adapters_exclude_each_other(make: Callable[..., Any]) -> None:
    with pytest.raises(ModelError, match="not both"):
        Bundle(make("llama"), "flat", 2, SPEC)


def test_without_peft_it_says_how_to_install(make: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == "peft" else find(name, *a))
    with pytest.raises(ModelError, match="not installed") as refused:
        bundle_of(make("llama"))
    assert "pip install 'trimtab[lora]'" in refused.value.fix


def test_a_part_may_start_as_another(make: Callable[..., Any], batch: FlatBatch) -> None:
    """The critic that starts as the reward model: the same numbers, the same base, an adapter of its own."""
    lm = make("llama")
    bundle = bundle_of(lm)
    stir(bundle, "reward")
    body = bundle.starting_as("reward")
    reward = cast(Any, bundle.parts["reward"]).body
    with torch.no_grad():
        assert torch.equal(body(batch), reward(batch))
        assert not torch.equal(body(batch), bundle.whole(batch))
    shared = {id(p) for p in body.parameters()} & {id(p) for p in reward.parameters()}
    assert shared == {id(p) for p in bundle.whole.parameters()}
    other = Bundle(make("llama"), "flat", None, SPEC)
    other.add_scalar("reward", "last", body=bundle.whole, head=nn.Linear(32, 1, bias=False), trained=False)
    fresh = other.starting_as("reward")
    with torch.no_grad():
        assert adapters(fresh) and torch.equal(fresh(batch), bundle.whole(batch))


@torch.no_grad()
def test_the_sampler_reads_the_trainers_tensors(make: Callable[..., Any]) -> None:
    bundle = bundle_of(make("llama"))
    sampler = LocalSampler(
        bundle.policy_lm, bundle.mode, end_ids=(2,), decode=lambda ids: " ".join(map(str, ids)), slots=8
    )
    ask = [TokenPrompt(f"p{i}", (5 + i, 7, 9)) for i in range(6)]

    def sampled() -> tuple[list[tuple[int, ...]], float]:
        from trimtab.batch import Sequence, flatten

        answers = sampler.sample(ask, SamplingParams(6), StreamKey(1, "test"))
        rows = [Sequence([*a.prompt_ids, *a.ids], [False] * len(a.prompt_ids) + [True] * len(a.ids)) for a in answers]
        logp_T = bundle(("policy",), flatten(rows))["policy"]["logp_T"]
        told = torch.tensor([x for a in answers for x in a.logps])
        return [a.ids for a in answers], float((logp_T[flatten(rows).act_T] - told).abs().max())

    before, gap = sampled()
    assert gap < 1e-4
    stir(bundle, "policy")
    after, gap = sampled()
    assert gap < 1e-4 and after != before, "it went on with weights of before the update"


# ---- files


@pytest.fixture
def saved(make: Callable[..., Any], tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> Iterator[Any]:
    """A function: family -> a bundle on a base saved in ``base``, stirred, with policy and reward saved beside it."""

    def save(name: str, dtype: torch.dtype = torch.float32) -> tuple[Bundle, Path]:
        lm = make(name, dtype)
        save_lm(lm, tokenizer, tmp_path / "base", None, {})
        bundle = bundle_of(lm)
        stir(bundle, "policy", "reward")
        kept = tensors(lm)
        beside = adapter_of(bundle, "policy", "base")
        save_lm(bundle.saved_lm(), tokenizer, tmp_path / "policy", None, {}, beside=beside)
        head = cast(Any, bundle.parts["reward"]).head
        save_reward(
            merged_decoder(bundle, "reward"), head, tokenizer, tmp_path / "reward", None, {}, end_ids=(2,),
            beside=adapter_of(bundle, "reward", "base"),
        )  # fmt: skip
        assert all(torch.equal(tensor, kept[key]) for key, tensor in lm.state_dict().items()), "merged in place"
        return bundle, tmp_path

    return save


def logits(model: Any, ids: Tensor) -> Tensor:
    with torch.no_grad():
        return model.eval()(input_ids=ids).logits.float()


@pytest.mark.parametrize("name", FAMILIES)
def test_plain_transformers_and_plain_peft_load_what_was_saved(name: str, saved: Any, batch: FlatBatch) -> None:
    bundle, folder = saved(name)
    merged = AutoModelForCausalLM.from_pretrained(folder / "policy", dtype=torch.float32)
    base = AutoModelForCausalLM.from_pretrained(folder / "base", dtype=torch.float32)
    starts = batch.start_N1.tolist()
    ids = batch.ids_T[starts[1] : starts[2]][None]
    plain = logits(base, ids).log_softmax(-1)
    apart = logits(PeftModel.from_pretrained(base, str(folder / "policy" / "adapter")), ids).log_softmax(-1)
    whole = logits(merged, ids).log_softmax(-1)
    ours = bundle(("policy",), batch)["policy"]["logp_T"].detach()[starts[1] : starts[2]]
    acts = batch.act_T[starts[1] : starts[2]]
    for found in (apart, whole):
        told = torch.cat([torch.zeros(1), found[0, :-1].gather(-1, ids[0, 1:, None]).squeeze(-1)])
        torch.testing.assert_close(told[acts], ours[acts], atol=1e-5, rtol=1e-5)
    assert float((whole - plain).abs().max()) > 0.05


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_a_reward_adapter_scores_in_plain_peft_and_on_the_base(name: str, saved: Any, batch: FlatBatch) -> None:
    bundle, folder = saved(name)
    with torch.no_grad():
        ours = bundle(("reward",), batch)["reward"]["score_N"]
    starts = batch.start_N1.tolist()
    ids = batch.ids_T[starts[1] : starts[2]][None]
    base = AutoModelForSequenceClassification.from_pretrained(folder / "base", num_labels=1, dtype=torch.float32)
    base.config.pad_token_id = None
    merged = AutoModelForSequenceClassification.from_pretrained(folder / "reward", dtype=torch.float32)
    apart = PeftModel.from_pretrained(base, str(folder / "reward" / "adapter"))
    for found in (logits(apart, ids), logits(merged, ids)):
        torch.testing.assert_close(found.reshape(1), ours[1:2], atol=1e-5, rtol=1e-5)
    loaded = load_lm(ModelSpec(str(folder / "base"), dtype="float32"))
    spec = ModelSpec(str(folder / "reward"), dtype="float32")
    on = load_reward_on(loaded, spec)
    assert on is not None
    other = Bundle(loaded.lm, loaded.mode, None, SPEC)
    other.add_scalar("reward", "last", body=on.body, head=on.head, trained=False)
    apart = load_reward(spec, loaded.mode)
    other.add_scalar("whole", "last", body=apart.body, head=apart.head, trained=False)
    with torch.no_grad():
        out = other(("reward", "whole"), batch)
    assert torch.equal(out["reward"]["score_N"], ours)
    torch.testing.assert_close(out["whole"]["score_N"], ours, atol=1e-5, rtol=1e-5)
    base_ids = {id(p) for p in loaded.lm.parameters()}
    assert {id(p) for p in on.body.parameters()} & base_ids, "it shares the base"
    assert not any(p.requires_grad for p in other.parts["reward"].parameters())


def test_an_adapter_of_another_base_is_not_used(saved: Any) -> None:
    _, folder = saved("llama")
    loaded = load_lm(ModelSpec(str(folder / "base"), dtype="float32"))
    with torch.no_grad():
        next(loaded.lm.parameters())[0, 0] += 1e-3
    assert load_reward_on(loaded, ModelSpec(str(folder / "reward"), dtype="float32")) is None
    assert load_reward_on(loaded, ModelSpec(str(folder / "base"), dtype="float32")) is None


def test_a_damaged_adapter_is_refused(saved: Any) -> None:
    _, folder = saved("llama")
    loaded = load_lm(ModelSpec(str(folder / "base"), dtype="float32"))
    file = folder / "reward" / "adapter" / "adapter_model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(ModelError, match="not the adapter that was saved"):
        load_reward_on(loaded, ModelSpec(str(folder / "reward"), dtype="float32"))


def test_the_adapters_files_have_one_order(saved: Any) -> None:
    """PEFT keeps sets, which another process would write in another order: a run's bytes must not depend on it."""
    _, folder = saved("llama")
    config = json.loads((folder / "policy" / "adapter" / "adapter_config.json").read_text("utf-8"))
    assert config["target_modules"] == sorted(config["target_modules"])
    assert (config["lora_dropout"], config["r"], config["lora_alpha"]) == (0.0, 3, 6.0)
    assert config["base_model_name_or_path"] == "base"


@torch.no_grad()
def test_bfloat16_merges_in_float32_and_rounds_once(saved: Any) -> None:
    bundle, _ = saved("llama", torch.bfloat16)
    layer = next(m for _, m in adapters(cast(Any, bundle.parts["policy"]).body.decoder))
    assert layer.lora_A["default"].weight.dtype == torch.float32
    delta = layer.lora_B["default"].weight @ layer.lora_A["default"].weight * (6.0 / 3)
    expected = (layer.base_layer.weight.float() + delta).to(torch.bfloat16)
    merged = dict(bundle.saved_lm().named_parameters())
    assert torch.equal(merged["model.layers.0.self_attn.q_proj.weight"], expected)
