"""What is sampled: frequencies, log-probabilities, streams."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from trimtab.batch import Sequence, flatten
from trimtab.models.flat import Body, decoder_of
from trimtab.ops.sampling import final_logits, inverse_cdf
from trimtab.protocols import SamplingParams, StreamKey, TokenPrompt
from trimtab.runtime.seeds import uniforms

STREAM = StreamKey(seed=3, stage="test")
CHI_SQUARE_999 = (0, 10.8, 13.8, 16.3, 18.5, 20.5, 22.5, 24.3, 26.1, 27.9, 29.6)
"""0.999 quantiles by degrees of freedom."""


@torch.no_grad()
def logits_after(lm: Any, ids: tuple[int, ...]) -> torch.Tensor:
    """Plain transformers: logits of every position, [L, V]."""
    lm.set_attn_implementation("eager")
    return lm(input_ids=torch.tensor([ids]), use_cache=False).logits[0].float()


@pytest.mark.parametrize(("dtype", "mean", "most"), [(torch.float32, 2e-6, 2e-5), (torch.bfloat16, 0.03, 0.2)])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_log_probabilities_are_the_learners(
    family: str,
    dtype: torch.dtype,
    mean: float,
    most: float,
    temperature: float,
    make: Any,
    sampler_of: Any,
    prompts_of: Any,
    learner: Any,
) -> None:
    lm = make(family, dtype)
    answers = sampler_of(lm).sample(prompts_of(16), SamplingParams(10, temperature), STREAM)
    theirs = torch.cat(learner(lm, answers, temperature))
    ours = torch.tensor([logp for answer in answers for logp in answer.logps])
    gap = (ours - theirs).abs()
    assert gap.mean() < mean and gap.max() < most
    assert ours.min() < -2, "only likely tokens: the comparison would be easy"


def test_planted_faults_show_in_log_probabilities(make: Any, sampler_of: Any, prompts_of: Any, learner: Any) -> None:
    """Sampling that the learner does not know of must be visible: a nucleus, another temperature, other weights."""
    lm, prompts = make("llama"), prompts_of(16)

    def gap(params: SamplingParams) -> float:
        answers = sampler_of(lm).sample(prompts, params, STREAM)
        ours = torch.tensor([logp for answer in answers for logp in answer.logps])
        return float((ours - torch.cat(learner(lm, answers, 1.0))).abs().mean())

    assert gap(SamplingParams(10)) < 2e-6
    assert gap(SamplingParams(10, top_p=0.9)) > 0.02
    assert gap(SamplingParams(10, top_k=5)) > 0.02
    assert gap(SamplingParams(10, temperature=0.8)) > 0.02
    assert gap(SamplingParams(10, repetition_penalty=1.3)) > 0.02


@pytest.mark.parametrize(
    "params",
    [SamplingParams(1), SamplingParams(1, temperature=0.6), SamplingParams(1, top_p=0.8), SamplingParams(1, top_k=4)],
)
def test_frequencies_are_the_softmaxs(params: SamplingParams, make: Any, sampler_of: Any) -> None:
    lm = make("llama", vocabulary=11)
    prompt, draws = TokenPrompt("p", (3, 4, 5)), 4000
    answers = sampler_of(lm, slots=500, end_ids=()).sample([prompt], params, STREAM, samples=draws)
    logits_V = logits_after(lm, prompt.ids)[-1:]
    final_V = final_logits(logits_V, temperature=params.temperature, top_k=params.top_k, top_p=params.top_p)[0]
    expected_V = draws * final_V.softmax(-1).double()
    counts_V = torch.bincount(torch.tensor([answer.ids[0] for answer in answers]), minlength=11).double()
    assert counts_V[expected_V == 0].sum() == 0
    rare = expected_V < 5  # pooled: the chi-square's approximation needs five or so in a cell
    expected = torch.cat([expected_V[~rare], expected_V[rare].sum()[None]])
    counts = torch.cat([counts_V[~rare], counts_V[rare].sum()[None]])
    cells = expected > 1
    chi_square = ((counts - expected).square() / expected)[cells].sum()
    assert chi_square < CHI_SQUARE_999[int(cells.sum()) - 1]
    for answer in answers[:50]:
        assert answer.logps[0] == pytest.approx(float(final_V.log_softmax(-1)[answer.ids[0]]), abs=1e-5)


def test_position_k_uses_the_kth_number_of_its_stream(make: Any, sampler_of: Any, prompts_of: Any) -> None:
    """Every token is what its own number picks, computed here without a cache: none depends on earlier draws."""
    lm, stream = make("llama"), StreamKey(9, "ppo", version=4, attempt=1)
    answers = sampler_of(lm, end_ids=()).sample(prompts_of(6), SamplingParams(12, 1.3), stream, samples=2)
    for answer in answers:
        numbers = uniforms(12, 9, "sample", "ppo", 4, 1, answer.prompt_id, answer.sample)
        logits_LV = logits_after(lm, answer.prompt_ids + answer.ids)[len(answer.prompt_ids) - 1 : -1]
        tokens, _ = inverse_cdf(final_logits(logits_LV, temperature=1.3), torch.tensor(numbers))
        assert tuple(tokens.tolist()) == answer.ids


def test_a_longer_limit_only_adds(make: Any, sampler_of: Any, prompts_of: Any) -> None:
    short = sampler_of(make(), end_ids=()).sample(prompts_of(4), SamplingParams(5), STREAM)
    long = sampler_of(make(), end_ids=()).sample(prompts_of(4), SamplingParams(40), STREAM)
    assert [a.ids for a in short] == [a.ids[:5] for a in long]


def test_every_part_of_the_key_makes_another_stream(make: Any, sampler_of: Any) -> None:
    sampler, ask = sampler_of(make()), [TokenPrompt("a", (3, 4)), TokenPrompt("b", (3, 4))]
    keys = [StreamKey(1, "s"), StreamKey(2, "s"), StreamKey(1, "t"), StreamKey(1, "s", 1), StreamKey(1, "s", 0, 1)]
    answers = [a.ids for key in keys for a in sampler.sample(ask, SamplingParams(12, 2.0), key, samples=2)]
    assert len(set(answers)) == len(answers) == 20
    assert answers[:4] == [a.ids for a in sampler.sample(ask, SamplingParams(12, 2.0), keys[0], samples=2)]


def test_greedy_is_transformers_greedy(family: str, make: Any, sampler_of: Any, prompts_of: Any) -> None:
    lm = make(family)
    answers = sampler_of(lm, end_ids=()).sample(prompts_of(6), SamplingParams(9, temperature=0), STREAM)
    for answer in answers:
        logits_LV = logits_after(lm, answer.prompt_ids + answer.ids)[len(answer.prompt_ids) - 1 : -1]
        assert tuple(logits_LV.argmax(-1).tolist()) == answer.ids
        assert answer.logps == (0.0,) * 9


def test_repetition_penalty_counts_prompt_and_answer(make: Any, sampler_of: Any) -> None:
    lm, prompt = make("llama"), TokenPrompt("p", (3, 4, 5, 6))
    (answer,) = sampler_of(lm, end_ids=()).sample([prompt], SamplingParams(15, repetition_penalty=1.7), STREAM)
    logits_LV = logits_after(lm, prompt.ids + answer.ids)
    for k, (token, logp) in enumerate(zip(answer.ids, answer.logps, strict=True)):
        text = [*prompt.ids, *answer.ids[:k]]
        row = logits_LV[len(text) - 1].clone()
        for seen in set(text):
            row[seen] = row[seen] / 1.7 if row[seen] > 0 else row[seen] * 1.7
        assert logp == pytest.approx(float(row.log_softmax(-1)[token]), abs=1e-4)


def test_the_weights_of_now_are_sampled(make: Any, sampler_of: Any, prompts_of: Any, learner: Any) -> None:
    lm, prompts = make("llama"), prompts_of(4)
    sampler = sampler_of(lm)
    before = sampler.sample(prompts, SamplingParams(8), STREAM)
    with torch.no_grad():
        for parameter in lm.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    after = sampler.sample(prompts, SamplingParams(8), STREAM)
    assert [a.logps for a in before] != [a.logps for a in after]
    assert after == sampler_of(lm).sample(prompts, SamplingParams(8), STREAM)
    theirs = torch.cat(learner(lm, after, 1.0))
    torch.testing.assert_close(torch.tensor([x for a in after for x in a.logps]), theirs, atol=5e-5, rtol=0)


def test_body_and_head_are_the_learners_tensors(make: Any, sampler_of: Any) -> None:
    lm = make("llama")
    own = {id(p) for p in lm.parameters()}
    sampler = sampler_of(lm)
    assert {id(p) for p in sampler.body.parameters()} <= own
    ids = [3, 4, 5]
    hidden_TD = sampler.body(flatten([Sequence(ids, [False] * 3)]))
    assert torch.equal(hidden_TD, Body(decoder_of(lm), "flat")(flatten([Sequence(ids, [False] * 3)])))
