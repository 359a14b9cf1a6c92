"""One axis of tokens gives what each text alone gives, whatever the family, the order and the window."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from trimtab.batch import FlatBatch, Sequence, flatten
from trimtab.errors import ModelError
from trimtab.models.attention import IMPLEMENTATION, KVCache, Prefix, flat_attention
from trimtab.models.bundle import Bundle
from trimtab.models.flat import Body, decoder_of, layer_list, set_attention
from trimtab.models.load import probe

from .conftest import FEW, MODES, alone


def logp_of(lm: PreTrainedModel, batch: FlatBatch) -> Tensor:
    bundle = Bundle(lm, probe(lm), None)
    bundle.add_policy()
    with torch.no_grad():
        return bundle(["policy"], batch)["policy"]["logp_T"]


def test_hidden_states_and_log_probabilities_equal_one_by_one(
    family: str, make: Callable[..., PreTrainedModel], texts: list[Sequence], batch: FlatBatch
) -> None:
    lm = make(family)
    mode = probe(lm)
    assert mode == MODES.get(family, "flat")
    with torch.no_grad():
        hidden_TD = Body(decoder_of(lm), mode)(batch)
    logp_T = logp_of(lm, batch)
    true_hidden, true_logp = alone(lm, texts)
    assert true_logp.abs().max() > 1, "these random models must have opinions, or the test sees nothing"
    torch.testing.assert_close(hidden_TD, true_hidden, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(logp_T, true_logp, atol=1e-5, rtol=1e-5)


def test_the_order_of_sequences_changes_nothing(body: Body, batch: FlatBatch) -> None:
    order = [2, 0, 3, 1]
    with torch.no_grad():
        straight, shuffled = body(batch), body(batch.select(order))
    starts = batch.start_N1.tolist()
    again = torch.cat([straight[starts[row] : starts[row + 1]] for row in order])
    torch.testing.assert_close(shuffled, again, atol=1e-6, rtol=1e-6)


def test_no_text_sees_another(body: Body, texts: list[Sequence], batch: FlatBatch) -> None:
    changed = [*texts]
    changed[1] = Sequence(ids=[(i + 1) % 90 for i in texts[1].ids], act=texts[1].act)
    with torch.no_grad():
        one, two = body(batch), body(flatten(changed))
    same = batch.sequence_T != 1
    assert torch.equal(one[same], two[same])
    assert not torch.equal(one[~same], two[~same])


def test_no_token_sees_the_future(body: Body, texts: list[Sequence], batch: FlatBatch) -> None:
    changed = [Sequence(ids=[*t.ids[:-1], (t.ids[-1] + 1) % 90], act=t.act) for t in texts]
    with torch.no_grad():
        one, two = body(batch), body(flatten(changed))
    last = torch.zeros(batch.tokens, dtype=torch.bool)
    last[batch.last_T()] = True
    torch.testing.assert_close(one[~last], two[~last], atol=1e-6, rtol=1e-6)


def test_a_window_hides_what_lies_before_it() -> None:
    torch.manual_seed(1)
    query, key, value = (torch.randn(1, 2, 9, 4) for _ in range(3))
    moved = value.clone()
    moved[:, :, 0] += 10
    starts = torch.tensor([0, 9])
    outs = []
    for values in (value, moved):
        out, _ = flat_attention(
            torch.nn.Identity(), query, key, values, None, sliding_window=3, cu_seq_lens_q=starts, cu_seq_lens_k=starts
        )
        outs.append(out)
    changed = (outs[0] != outs[1]).any(-1).any(-1)[0]
    assert changed.tolist() == [True] * 3 + [False] * 6


@pytest.mark.parametrize("softcap", [None, 2.0])
@pytest.mark.parametrize("window", [None, 3])
def test_attention_equals_the_formula(softcap: float | None, window: int | None) -> None:
    torch.manual_seed(2)
    starts = torch.tensor([0, 5, 6, 13])
    query, key, value = torch.randn(1, 4, 13, 8), torch.randn(1, 2, 13, 8), torch.randn(1, 2, 13, 8)
    out, _ = flat_attention(
        torch.nn.Identity(), query, key, value, None, scaling=0.3, softcap=softcap, sliding_window=window,
        cu_seq_lens_q=starts, cu_seq_lens_k=starts,
    )  # fmt: skip
    text = torch.bucketize(torch.arange(13), starts[1:], right=True)
    back = torch.arange(13)[:, None] - torch.arange(13)[None, :]
    seen = (text[:, None] == text[None, :]) & (back >= 0) & (back < (window or 99))
    scores = torch.einsum("hqd,hkd->hqk", query[0], key[0].repeat_interleave(2, 0)) * 0.3
    scores = scores if softcap is None else softcap * torch.tanh(scores / softcap)
    weights = scores.masked_fill(~seen, -torch.inf).softmax(-1)
    expected = torch.einsum("hqk,hkd->qhd", weights, value[0].repeat_interleave(2, 0))
    torch.testing.assert_close(out[0], expected, atol=1e-6, rtol=1e-5)


def test_attention_refuses_what_it_would_ignore() -> None:
    part = torch.zeros(1, 2, 3, 4)
    starts = torch.tensor([0, 3])
    with pytest.raises(ModelError, match="sinks or a mask"):
        flat_attention(torch.nn.Identity(), part, part, part, None, cu_seq_lens_q=starts, s_aux=torch.zeros(2))
    with pytest.raises(ModelError, match="sinks or a mask"):
        flat_attention(torch.nn.Identity(), part, part, part, torch.zeros(1, 1, 3, 3), cu_seq_lens_q=starts)
    with pytest.raises(ModelError, match="sinks or a mask"):
        flat_attention(torch.nn.Identity(), part.repeat(2, 1, 1, 1), part, part, None, cu_seq_lens_q=starts)
    with pytest.raises(ModelError, match="without cu_seq_lens_q"):
        flat_attention(torch.nn.Identity(), part, part, part, None)


def test_setting_the_attention_reaches_layers_with_configs_of_their_own(make: Callable[..., PreTrainedModel]) -> None:
    lm = make("llama")
    copied = copy.deepcopy(lm.model.layers[0])
    lm.model.layers[0] = copied
    assert copied.self_attn.config is not lm.config
    set_attention(lm, IMPLEMENTATION)
    assert copied.self_attn.config._attn_implementation == IMPLEMENTATION


def test_layers_are_found_by_their_number(make: Callable[..., PreTrainedModel]) -> None:
    decoder = decoder_of(make("opt"))
    owner, name = layer_list(decoder, 4)
    assert (type(owner).__name__, name) == ("OPTDecoder", "layers")
    with pytest.raises(LookupError, match="0 lists of 5 layers"):
        layer_list(decoder, 5)


def _decode(body: Body, prompts: list[list[int]], continued: list[list[int]], slots: int) -> list[Tensor]:
    """Hidden states of the continuations (equal lengths), token by token through the cache."""
    cache = KVCache(slots, 40)
    lengths = [0] * slots
    for slot, ids in enumerate(prompts):
        cache.filling = prefix = Prefix()
        body(flatten([Sequence(ids, [False] * len(ids))]), cache=cache)
        cache.filling = None
        cache.enter(prefix, slot)
        lengths[slot] = len(ids)
    taken: list[list[Tensor]] = [[] for _ in prompts]
    for step in range(len(continued[0])):
        cache.at(lengths, torch.device("cpu"))
        ids = [row[step] for row in continued] + [0] * (slots - len(prompts))
        one = flatten([Sequence([i], [False]) for i in ids])
        one.position_T = cache.length_S.clone()
        hidden_SD = body(one, cache=cache)
        for slot in range(len(prompts)):
            taken[slot].append(hidden_SD[slot])
            lengths[slot] += 1
    return [torch.stack(parts) for parts in taken]


@pytest.mark.parametrize("name", sorted(set(FEW) - {"bloom"}))
@torch.no_grad()
def test_cached_decoding_equals_the_whole_text(name: str, make: Callable[..., PreTrainedModel]) -> None:
    lm = make(name)
    body = Body(decoder_of(lm), probe(lm))
    prompts, continued = [[*range(5, 36)], [11, 12]], [[21, 22, 23], [31, 32, 33]]  # one crosses a block
    decoded = _decode(body, prompts, continued, slots=4)
    for prompt, more, hidden in zip(prompts, continued, decoded, strict=True):
        whole = body(flatten([Sequence(prompt + more, [False] * (len(prompt) + 3))]))
        torch.testing.assert_close(hidden, whole[-3:], atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_a_slot_does_not_depend_on_the_others(make: Callable[..., PreTrainedModel]) -> None:
    """Bit for bit: which texts share the slots must not decide which token is sampled."""
    lm = make("llama")
    body = Body(decoder_of(lm), probe(lm))
    one = _decode(body, [[5, 6, 7], [8]], [[9, 10, 11], [12, 13, 14]], slots=3)
    two = _decode(body, [[5, 6, 7], [*range(40, 70)]], [[9, 10, 11], [15, 16, 17]], slots=3)
    three = _decode(body, [[5, 6, 7]], [[9, 10, 11]], slots=3)
    assert torch.equal(one[0], two[0]) and torch.equal(one[0], three[0])


@torch.no_grad()
def test_several_slots_may_start_from_one_prefix(make: Callable[..., PreTrainedModel]) -> None:
    lm = make("llama")
    body = Body(decoder_of(lm), probe(lm))
    cache = KVCache(3, 16)
    cache.filling = prefix = Prefix()
    body(flatten([Sequence([5, 6, 7], [False] * 3)]), cache=cache)
    cache.filling = None
    for slot in (0, 2):
        cache.enter(prefix, slot)
    cache.at([3, 0, 3], torch.device("cpu"))
    one = flatten([Sequence([9], [False])] * 3)
    one.position_T = cache.length_S.clone()
    hidden_SD = body(one, cache=cache)
    assert torch.equal(hidden_SD[0], hidden_SD[2])
    assert not torch.allclose(hidden_SD[0], hidden_SD[1])


def test_a_full_cache_says_so() -> None:
    cache = KVCache(2, 32)
    cache.at([31, 0], torch.device("cpu"))
    with pytest.raises(ValueError, match="no room"):
        cache.at([32, 0], torch.device("cpu"))


def test_the_padded_fallback_has_no_cache(make: Callable[..., PreTrainedModel]) -> None:
    lm = make("bloom")
    with pytest.raises(ValueError, match="no key/value cache"):
        Body(decoder_of(lm), probe(lm))(flatten([Sequence([9], [False])]), cache=KVCache(1, 4))
