"""How answers end, what is refused, and what sampling leaves behind."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch

from trimtab.batch import Sequence, flatten
from trimtab.errors import DataError, Diverged, ModelError, RecipeError
from trimtab.models.attention import BLOCK, KVCache
from trimtab.models.bundle import Bundle
from trimtab.models.flat import set_attention
from trimtab.protocols import SamplingParams, StreamKey, TokenPrompt
from trimtab.sampling import local

STREAM = StreamKey(seed=3, stage="test")
PARAMS = SamplingParams(10, 1.3)


def test_finish_reasons_and_text(make: Any, sampler_of: Any, prompts_of: Any) -> None:
    prompts = prompts_of(30)
    answers = sampler_of(make(), end_ids=(2, 7, 9)).sample(prompts, PARAMS, STREAM)
    assert {a.finish for a in answers} == {"end", "length"}
    for prompt, answer in zip(prompts, answers, strict=True):
        ends = [i in (2, 7, 9) for i in answer.ids]
        assert not any(ends[:-1]) and ends[-1] == (answer.finish == "end")
        assert len(answer.ids) <= 10 and (answer.finish == "end" or len(answer.ids) == 10)
        assert answer.prompt_ids == prompt.ids and len(answer.logps) == len(answer.ids)
        assert all(logp < 0 for logp in answer.logps)
        shown = [*prompt.ids[len(prompt.ids) - prompt.prefill :], *answer.ids[: -1 if ends[-1] else None]]
        assert answer.text == " ".join(f"{i:02d}" for i in shown)


def test_an_end_token_on_the_last_place_is_an_end(make: Any, sampler_of: Any) -> None:
    (free,) = sampler_of(make(), end_ids=()).sample([TokenPrompt("p", (3, 4))], PARAMS, STREAM)
    last = free.ids[-1]
    at = free.ids.index(last) + 1
    (answer,) = sampler_of(make(), end_ids=(last,)).sample(
        [TokenPrompt("p", (3, 4))], replace(PARAMS, max_new_tokens=at), STREAM
    )
    assert answer.finish == "end" and answer.ids == free.ids[:at]


def test_stop_strings_cut_the_text_and_keep_the_ids(make: Any, sampler_of: Any) -> None:
    prompt = TokenPrompt("p", (3, 4, 11, 12), prefill=2)
    sampler = sampler_of(make(), end_ids=())
    (free,) = sampler.sample([prompt], PARAMS, STREAM)
    words = [f"{i:02d}" for i in free.ids]
    stop = f"{words[3]} {words[4]}"  # spans two tokens
    (answer,) = sampler.sample([prompt], replace(PARAMS, stop=("no such text", stop)), STREAM)
    assert answer.finish == "stop" and answer.ids == free.ids[:5] and answer.logps == free.logps[:5]
    assert answer.text == free.text[: free.text.index(stop)] and answer.text.startswith("11 12 ")

    (earliest,) = sampler.sample([prompt], replace(PARAMS, stop=(words[4], f"{words[3]} {words[4]}")), STREAM)
    assert earliest.text == answer.text
    (in_prefill,) = sampler.sample([prompt], replace(PARAMS, stop=("11 12",)), STREAM)
    assert in_prefill == free, "a stop string in the prefill stops nothing"


def test_a_stop_on_the_last_place_is_a_stop_and_an_end_token_comes_first(make: Any, sampler_of: Any) -> None:
    prompt, sampler = TokenPrompt("p", (3, 4)), sampler_of(make(), end_ids=())
    (free,) = sampler.sample([prompt], PARAMS, STREAM)
    last = f"{free.ids[2]:02d}"
    assert last not in [f"{i:02d}" for i in free.ids[:2]]
    short = replace(PARAMS, max_new_tokens=3, stop=(last,))
    assert sampler.sample([prompt], short, STREAM)[0].finish == "stop"
    assert sampler_of(make(), end_ids=free.ids[2:3]).sample([prompt], short, STREAM)[0].finish == "end"


def test_nothing_to_do(make: Any, sampler_of: Any) -> None:
    assert sampler_of(make()).sample([], PARAMS, STREAM) == []


@pytest.mark.parametrize(
    ("prompts", "message"),
    [
        ([TokenPrompt("a", ())], "'a' has no tokens"),
        ([TokenPrompt("a", (3,)), TokenPrompt("a", (4,))], "'a' comes twice in one call, with other tokens"),
        ([TokenPrompt("a", (3,)), TokenPrompt("a", (3,))], "with the same tokens.*\n.*use samples"),
        ([TokenPrompt("a", (3,), prefill=2)], "2 of its 1 tokens"),
        ([TokenPrompt("a", (3, 61))], "token 61, but the model has 61"),
        ([TokenPrompt("a", (-1, 3))], "token -1"),
        (
            [TokenPrompt("a", (3,)), TokenPrompt("b", (3,) * 31)],
            r"1 of 2 prompts leave no room for 10 new tokens in 40: 'b' \(31 tokens\)\n.*more than 30 tokens",
        ),
    ],
)
def test_bad_prompts_are_refused_by_name(prompts: list[TokenPrompt], message: str, make: Any, sampler_of: Any) -> None:
    with pytest.raises(DataError, match=message):
        sampler_of(make(), capacity=40).sample(prompts, PARAMS, STREAM)


def test_room_is_what_the_model_has_positions_for(make: Any, sampler_of: Any) -> None:
    lm = make("gpt2")
    assert sampler_of(lm).room == 160 and sampler_of(lm, capacity=99).room == 99
    assert sampler_of(lm, capacity=999).room == 160 and sampler_of(make("bloom")).room is None
    fits = TokenPrompt("a", (3,) * 150)
    assert sampler_of(lm).sample([fits], PARAMS, STREAM)[0].ids
    with pytest.raises(DataError, match="no room"):
        sampler_of(lm).sample([TokenPrompt("a", (3,) * 151)], PARAMS, STREAM)


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"max_new_tokens": 0}, "max_new_tokens"),
        ({"temperature": -0.1}, "temperature"),
        ({"temperature": math.nan}, "temperature"),
        ({"temperature": math.inf}, "temperature"),
        ({"top_p": 0.0}, "top_p"),
        ({"top_p": 1.1}, "top_p"),
        ({"top_k": -1}, "top_k"),
        ({"repetition_penalty": 0.0}, "repetition_penalty"),
        ({"stop": ("",)}, "stop"),
    ],
)
def test_bad_parameters_are_refused_by_key(change: dict[str, Any], key: str, make: Any, sampler_of: Any) -> None:
    with pytest.raises(RecipeError, match=f"key '{key}'"):
        sampler_of(make()).sample([TokenPrompt("a", (3,))], replace(PARAMS, **change), STREAM)


def test_no_samples_and_no_slots_are_refused(make: Any, sampler_of: Any) -> None:
    with pytest.raises(RecipeError, match="key 'samples'"):
        sampler_of(make()).sample([TokenPrompt("a", (3,))], PARAMS, STREAM, samples=0)
    with pytest.raises(ValueError, match="at least one slot"):
        sampler_of(make(), slots=0)


def test_a_diverged_model_is_named(make: Any, sampler_of: Any) -> None:
    lm = make("llama")
    sampler = sampler_of(lm)
    sampler.sample([TokenPrompt("a", (3,))], PARAMS, STREAM)
    with torch.no_grad():
        lm.model.norm.weight[0] = math.nan
    with pytest.raises(Diverged, match="not finite"):
        sampler.sample([TokenPrompt("a", (3,))], PARAMS, STREAM)


def test_attention_that_was_switched_is_refused(make: Any, sampler_of: Any) -> None:
    lm = make("llama")
    sampler = sampler_of(lm)
    sampler.sample([TokenPrompt("a", (3,))], PARAMS, STREAM)
    set_attention(lm, "sdpa")
    with pytest.raises(ModelError, match="keys and values of 0 of its 2 layers"):
        sampler.sample([TokenPrompt("a", (3,))], PARAMS, STREAM)


def test_sampling_leaves_nothing_behind(family: str, make: Any, sampler_of: Any, prompts_of: Any) -> None:
    """No gradient flags moved, no inference tensors, training modes as they were: the learner steps right after."""
    lm = make(family)
    mode = sampler_of(lm).mode
    bundle = Bundle(lm, mode, None)
    bundle.add_policy()
    lm.train()
    flags = [p.requires_grad for p in lm.parameters()]
    sampler_of(lm).sample(prompts_of(3), PARAMS, STREAM)
    assert flags == [p.requires_grad for p in lm.parameters()] and all(m.training for m in lm.modules())
    assert not any(t.is_inference() for t in (*lm.parameters(), *lm.buffers()))
    lm.eval()
    batch = flatten([Sequence([3, 4, 5, 6], [False, True, True, True])])
    bundle(["policy"], batch)["policy"]["logp_T"].sum().backward()
    assert all(p.grad is not None for p in lm.parameters())


def test_dropout_is_off_while_sampling(make: Any, sampler_of: Any, prompts_of: Any) -> None:
    lm = make("gpt2")
    assert lm.config.resid_pdrop > 0
    truth = sampler_of(lm).sample(prompts_of(4), PARAMS, STREAM)
    lm.train()
    assert sampler_of(lm).sample(prompts_of(4), PARAMS, STREAM) == truth


def test_the_slow_path_is_announced_once(make: Any, sampler_of: Any) -> None:
    said: list[str] = []
    sampler = sampler_of(make("bloom"), say=said.append)
    for _ in range(2):
        sampler.sample([TokenPrompt("a", (3,))], PARAMS, STREAM)
    assert said == ["BloomForCausalLM is sampled without a key/value cache: right, but slow"]


def test_a_family_whose_cached_step_is_off_is_recomputed(
    make: Any, sampler_of: Any, prompts_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    lm, prompts, said = make("llama"), prompts_of(10), []
    truth = sampler_of(lm).sample(prompts, PARAMS, STREAM)
    monkeypatch.setattr(local, "parity", lambda *args: (0.5, True))
    answers = sampler_of(lm, say=said.append).sample(prompts, PARAMS, STREAM)
    assert [a.ids for a in answers] == [a.ids for a in truth]
    for ours, theirs in zip(answers, truth, strict=True):
        assert ours.logps == pytest.approx(theirs.logps, abs=1e-4)
    assert len(said) == 2 and "0.5 off" in said[0] and "without a key/value cache" in said[1]


def test_a_machine_that_mixes_slots_is_named(make: Any, sampler_of: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(local, "parity", lambda *args: (0.0, False))
    sampler_of(make(), say=said.append).sample([TokenPrompt("a", (3,))], PARAMS, STREAM)
    assert len(said) == 1 and "differ by row" in said[0]


def test_the_cache_has_whole_blocks_and_an_end() -> None:
    cache = KVCache(2, BLOCK + 1)
    assert cache.capacity == 2 * BLOCK
    for longest, reach in ((0, BLOCK), (BLOCK - 1, BLOCK), (BLOCK, 2 * BLOCK)):
        cache.at([0, longest], torch.device("cpu"))
        assert cache.reach == reach
    assert (cache.bias(None)[1] == 0).sum() == BLOCK + 1 and (cache.bias(3)[1] == 0).sum() == 3
    with pytest.raises(ValueError, match="no room"):
        cache.at([0, 2 * BLOCK], torch.device("cpu"))
