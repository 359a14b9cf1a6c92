from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch import Tensor

from trimtab.errors import Diverged
from trimtab.ops.sampling import final_logits, greedy, inverse_cdf, keep_top_k, keep_top_p, penalise_repetition

NONE = -math.inf
LARGEST = 0.99999994  # the float32 below 1
SIZES = [1, 3, 255, 256, 257, 1000]


def test_every_token_gets_its_interval() -> None:
    logits_SV = torch.tensor([0.5, 0.25, 0.0, 0.25]).log().expand(1000, -1)
    token_S, logp_S = inverse_cdf(logits_SV, torch.arange(1000) / 1000)
    assert token_S.tolist() == [0] * 500 + [1] * 250 + [3] * 250
    torch.testing.assert_close(logp_S[[0, -1]], torch.tensor([0.5, 0.25]).log())


@pytest.mark.parametrize("size", SIZES)
def test_log_probability_is_that_of_the_distribution(size: int) -> None:
    generator = torch.Generator().manual_seed(size)
    logits_SV = torch.randn(32, size, generator=generator) * 4 + 100
    token_S, logp_S = inverse_cdf(logits_SV, torch.rand(32, generator=generator))
    expected_S = logits_SV.double().log_softmax(-1).gather(1, token_S[:, None]).squeeze(1)
    torch.testing.assert_close(logp_S.double(), expected_S, atol=2e-6, rtol=2e-6)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("uniform", [0.0, LARGEST])
def test_the_ends_of_the_unit_interval_give_the_first_and_last_possible_token(size: int, uniform: float) -> None:
    logits_V = torch.zeros(size)
    logits_V[: size // 3] = NONE
    logits_V[size - size // 3 :] = NONE
    token_S, _ = inverse_cdf(logits_V[None], torch.tensor([uniform]))
    assert token_S.item() == (size // 3 if uniform == 0 else size - size // 3 - 1)


@settings(max_examples=200, deadline=None)
@given(st.data(), st.integers(1, 600), st.sampled_from([0.0, 0.25, 0.5, LARGEST, None]), st.integers(0, 2**31))
def test_an_impossible_token_is_never_drawn(data: st.DataObject, size: int, uniform: float | None, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits_V = torch.randn(size, generator=generator) * data.draw(st.sampled_from([0.1, 5.0, 40.0]))
    logits_V[torch.rand(size, generator=generator) < data.draw(st.sampled_from([0.0, 0.5, 0.99]))] = NONE
    logits_V[data.draw(st.integers(0, size - 1))] = 0.0
    uniform_S = torch.rand(1, generator=generator) if uniform is None else torch.tensor([uniform])
    token_S, logp_S = inverse_cdf(logits_V[None], uniform_S)
    assert logits_V[token_S.item()] > NONE and logp_S.item() > NONE
    assert logits_V.softmax(-1)[token_S.item()] > 0


def test_a_block_whose_float32_sum_came_out_too_large_does_not_run_over() -> None:
    generator = torch.Generator().manual_seed(0)
    logits_SV = torch.randn(4000, 250, generator=generator)
    logits_SV[:, 240:] = NONE
    token_S, _ = inverse_cdf(logits_SV, torch.full((4000,), LARGEST))
    assert token_S.max() == 239
    mass_SV = (logits_SV - logits_SV.amax(-1, keepdim=True)).exp()
    over_S = LARGEST * mass_SV.sum(-1).double() - mass_SV.double().sum(-1)
    assert over_S.max() > 0, "the case is meant to occur here"


def test_rare_tokens_late_in_the_vocabulary_are_reached() -> None:
    """One token has nearly all the mass; the others 1e-9 each, below what a float32 running sum near 1 can add."""
    size = 49152
    logits_V = torch.full((size,), math.log(1e-9))
    logits_V[0] = 0.0
    rest = (size - 1) * 1e-9 / (1 + (size - 1) * 1e-9)
    shares = torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64)
    token_S, _ = inverse_cdf(logits_V.expand(3, -1), 1 - rest + rest * shares)
    assert token_S.tolist() == pytest.approx((shares * (size - 1)).tolist(), abs=50)


def test_frequencies_follow_the_probabilities() -> None:
    generator = torch.Generator().manual_seed(0)
    logits_V, draws = torch.randn(300, generator=generator) * 2, 40000
    expected_V = logits_V.double().softmax(-1) * draws
    token_S, _ = inverse_cdf(logits_V.expand(draws, -1), torch.rand(draws, generator=generator))
    counts_V = torch.bincount(token_S, minlength=300).double()
    often_V = expected_V >= 5
    chi = ((counts_V - expected_V).square() / expected_V)[often_V].sum().item()
    freedom = int(often_V.sum()) - 1
    assert abs(chi - freedom) < 4 * math.sqrt(2 * freedom)


@pytest.mark.parametrize("threads", [1, 2])
def test_a_slot_does_not_depend_on_the_others_to_the_bit(threads: int) -> None:
    generator = torch.Generator().manual_seed(1)
    logits_SV, uniform_S = torch.randn(64, 5000, generator=generator) * 3, torch.rand(64, generator=generator)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        token_S, logp_S = inverse_cdf(logits_SV, uniform_S)
        for rows in ([5], [63, 5], [5, 5, 5], list(range(63, -1, -1)), list(range(0, 64, 3))):
            some_S, some_logp_S = inverse_cdf(logits_SV[rows], uniform_S[rows])
            assert torch.equal(some_S, token_S[rows]) and torch.equal(some_logp_S, logp_S[rows])
        spoilt_SV = logits_SV.clone()
        spoilt_SV[1:] = torch.randn(63, 5000, generator=generator) * 50
        assert inverse_cdf(spoilt_SV, uniform_S)[1][0] == logp_S[0]
    finally:
        torch.set_num_threads(before)


def test_inputs_are_left_alone() -> None:
    logits_SV = torch.randn(2, 300)
    copy = logits_SV.clone()
    inverse_cdf(logits_SV, torch.tensor([0.1, 0.9]))
    final_logits(logits_SV, logits_SV > 0, repetition_penalty=1.3, temperature=0.7, top_k=9, top_p=0.8)
    assert torch.equal(logits_SV, copy)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_logits_that_are_not_finite_are_named(bad: float) -> None:
    logits_SV = torch.zeros(3, 4)
    logits_SV[1, 2] = bad
    with pytest.raises(Diverged, match=r"slots \[1\]"):
        inverse_cdf(logits_SV, torch.zeros(3))
    with pytest.raises(Diverged):
        greedy(logits_SV)
    with pytest.raises(Diverged, match=r"slots \[0\]"):
        inverse_cdf(torch.full((1, 4), NONE), torch.zeros(1))


@pytest.mark.parametrize("bad", [-0.1, 1.0, math.nan])
def test_numbers_outside_the_unit_interval_are_refused(bad: float) -> None:
    with pytest.raises(ValueError, match="below 1"):
        inverse_cdf(torch.zeros(1, 4), torch.tensor([bad]))


def test_greedy_takes_the_first_of_equals_with_certainty() -> None:
    token_S, logp_S = greedy(torch.tensor([[0.0, 2.0, 2.0], [3.0, 1.0, NONE]]))
    assert token_S.tolist() == [1, 0] and logp_S.tolist() == [0.0, 0.0]


def test_small_filters() -> None:
    logits_SV = torch.tensor([0.5, 0.2, 0.2, 0.1]).log()[None]
    assert kept(keep_top_k(logits_SV, 1)) == [0]
    assert kept(keep_top_k(logits_SV, 2)) == [0, 1, 2], "those equal to the k-th stay"
    assert kept(keep_top_k(logits_SV, 0)) == kept(keep_top_k(logits_SV, 99)) == [0, 1, 2, 3]
    assert kept(keep_top_p(logits_SV, 0.3)) == [0]
    assert kept(keep_top_p(logits_SV, 0.6)) == [0, 1], "of equals the smaller id"
    assert kept(keep_top_p(logits_SV, 0.95)) == kept(keep_top_p(logits_SV, 1.0)) == [0, 1, 2, 3]
    seen_SV = torch.tensor([[True, True, False]])
    penalised = penalise_repetition(torch.tensor([[2.0, -2.0, 2.0]]), seen_SV, 2.0)
    assert penalised.tolist() == [[1.0, -4.0, 2.0]]


def kept(logits_SV: Tensor) -> list[int]:
    return logits_SV[0].isfinite().nonzero().flatten().tolist()


@pytest.mark.parametrize("seed", range(5))
def test_agrees_with_transformers_part_by_part_and_in_its_order(seed: int) -> None:
    from transformers.generation.logits_process import (
        LogitsProcessorList,
        RepetitionPenaltyLogitsProcessor,
        TemperatureLogitsWarper,
        TopKLogitsWarper,
        TopPLogitsWarper,
    )

    generator = torch.Generator().manual_seed(seed)
    logits_SV = torch.randn(4, 500, generator=generator)
    text_SL = torch.randint(0, 500, (4, 60), generator=generator)
    seen_SV = torch.zeros(4, 500, dtype=torch.bool).scatter(1, text_SL, True)
    theirs = LogitsProcessorList(
        [
            RepetitionPenaltyLogitsProcessor(1.3),
            TemperatureLogitsWarper(0.7),
            TopKLogitsWarper(40),
            TopPLogitsWarper(0.8),
        ]
    )
    expected_SV = theirs(text_SL, logits_SV.clone())  # pyright: ignore[reportArgumentType]
    ours_SV = final_logits(logits_SV, seen_SV, repetition_penalty=1.3, temperature=0.7, top_k=40, top_p=0.8)
    assert torch.equal(ours_SV.isfinite(), expected_SV.isfinite())
    torch.testing.assert_close(ours_SV, expected_SV)
    assert 1 < int(ours_SV.isfinite().sum(-1).min()) <= int(ours_SV.isfinite().sum(-1).max()) < 40


def test_off_is_the_models_own_distribution() -> None:
    logits_SV = torch.randn(2, 50)
    assert torch.equal(final_logits(logits_SV), logits_SV)
    assert final_logits(logits_SV.bfloat16()).dtype == torch.float32


@pytest.mark.parametrize(
    ("settings_", "says"),
    [
        ({"temperature": 0.0}, "greedy"),
        ({"top_p": 0.0}, "top-p"),
        ({"top_p": 1.5}, "top-p"),
        ({"top_k": -1}, "top-k"),
        ({"repetition_penalty": 1.2}, "seen"),
    ],
)
def test_settings_out_of_range_are_refused(settings_: dict[str, float], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        final_logits(torch.zeros(1, 4), **settings_)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="positive"):
        penalise_repetition(torch.zeros(1, 4), torch.ones(1, 4, dtype=torch.bool), 0.0)
