"""An answer depends on nothing but weights, prompt, parameters and its stream: to the bit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from trimtab.protocols import SamplingParams, StreamKey, TokenPrompt
from trimtab.records import Completion
from trimtab.sampling.local import SLOT_MULTIPLE

PARAMS = SamplingParams(max_new_tokens=10, temperature=1.3)
STREAM = StreamKey(seed=3, stage="test")


def keyed(answers: list[Completion]) -> dict[tuple[str, int], Completion]:
    return {(answer.prompt_id, answer.sample): answer for answer in answers}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_composition_order_and_splits_change_nothing(
    family: str, dtype: torch.dtype, make: Any, sampler_of: Any, prompts_of: Any
) -> None:
    lm = make(family, dtype)
    prompts = prompts_of(13)
    whole = sampler_of(lm).sample(prompts, PARAMS, STREAM, samples=2)
    assert [(a.prompt_id, a.sample) for a in whole] == [(p.id, n) for p in prompts for n in range(2)]
    truth = keyed(whole)
    assert len({a.ids for a in whole}) > 20, "the answers are too alike for this test to see anything"

    sampler = sampler_of(lm)
    assert keyed(sampler.sample(prompts[::-1], PARAMS, STREAM, samples=2)) == truth
    split = [sampler.sample(prompts[a:b], PARAMS, STREAM, samples=2) for a, b in ((0, 1), (1, 4), (4, 13))]
    assert [answer for part in split for answer in part] == whole
    fewer = sampler.sample(prompts[3:5], PARAMS, STREAM, samples=1)  # two of eight slots in use
    assert fewer == [truth["p3", 0], truth["p4", 0]]


def test_longer_company_changes_nothing(family: str, make: Any, sampler_of: Any, prompts_of: Any) -> None:
    """A text of several blocks in the next slot (or, padded, in the next row) widens what a step looks at."""
    lm = make(family)
    prompts = prompts_of(5)
    long = TokenPrompt("long", tuple(range(3, 60)) * 2)
    alone = sampler_of(lm).sample(prompts, PARAMS, STREAM)
    assert sampler_of(lm).sample([long, *prompts], PARAMS, STREAM)[1:] == alone


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_capacity_changes_nothing(dtype: torch.dtype, make: Any, sampler_of: Any, prompts_of: Any) -> None:
    lm = make("llama", dtype)
    answers = [sampler_of(lm, capacity=room).sample(prompts_of(5), PARAMS, STREAM) for room in (None, 40, 1000)]
    assert answers[0] == answers[1] == answers[2]


def test_which_answers_end_first_changes_nothing(make: Any, sampler_of: Any, prompts_of: Any) -> None:
    """Rows leave and enter at other steps, so texts meet other slots; ended answers are prefixes of the others."""
    lm, prompts = make("llama"), prompts_of(20)
    free = sampler_of(lm, end_ids=()).sample(prompts, PARAMS, STREAM)
    ending = sampler_of(lm, end_ids=tuple(range(0, 61, 5))).sample(prompts, PARAMS, STREAM)
    assert {a.finish for a in free} == {"length"} and {a.finish for a in ending} == {"length", "end"}
    for full, short in zip(free, ending, strict=True):
        assert full.ids[: len(short.ids)] == short.ids and full.logps[: len(short.ids)] == short.logps


def test_slots_are_rounded_up(make: Any, sampler_of: Any) -> None:
    assert [sampler_of(make(), slots=n).slots for n in (1, 8, 9)] == [SLOT_MULTIPLE, 8, 16]


def test_one_conversation_is_computed_once(make: Any, sampler_of: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two conversations and a prompt of one token, of which nothing is computed before; six prompts, 12 answers."""
    lm = make("llama")
    sampler = sampler_of(lm)
    first = sampler.sample([TokenPrompt("x", (5, 6))], PARAMS, STREAM)
    alone: list[tuple[int, ...]] = []
    forward: Callable[..., Any] = sampler.body.forward

    def watched(batch: Any, *args: Any, **kwargs: Any) -> Any:
        if batch.sequences == 1:
            alone.append(tuple(batch.ids_T.tolist()))
        else:
            assert batch.sequences == sampler.slots, "a product of another shape"
        return forward(batch, *args, **kwargs)

    monkeypatch.setattr(sampler.body, "forward", watched)
    a, b, tail = (5, 6, 7), (8, 9, 10, 11), (20, 21)
    prompts = [TokenPrompt(f"a{i}", (*a, *tail[:i]), prefill=i) for i in (1, 2)]
    prompts += [TokenPrompt(f"b{i}", (*b, *tail[:i]), prefill=i) for i in (1, 2)]
    prompts += [TokenPrompt("plain", (*b, 30)), TokenPrompt("x", (5,))]
    sampler.sample(prompts, PARAMS, STREAM, samples=2)
    assert sorted(alone) == [a, b]
    assert first[0].ids


def test_every_slot_meets_the_vocabulary(
    family: str, make: Any, sampler_of: Any, prompts_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever is in use: the output embedding's product has one shape too."""
    lm = make(family)
    sampler, linear, rows = sampler_of(lm), torch.nn.functional.linear, []

    def watched(hidden: Any, weight: Any, bias: Any = None) -> Any:
        if weight is lm.get_output_embeddings().weight:
            rows.append(hidden.shape[:-1])
        return linear(hidden, weight, bias)

    monkeypatch.setattr(torch.nn.functional, "linear", watched)
    sampler.sample(prompts_of(11), PARAMS, STREAM)
    assert set(rows) == {(8,)}
