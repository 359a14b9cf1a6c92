"""Trunk and branches: bit for bit the whole model; refused where they are not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn
from transformers import AttentionInterface, PreTrainedModel

from trimtab.batch import FlatBatch
from trimtab.errors import ModelError
from trimtab.models.bundle import Bundle
from trimtab.models.export import merged_decoder
from trimtab.models.flat import Body, decoder_of, set_attention
from trimtab.models.hydra import branch_of, check, merged, trunk_of, trunk_output
from trimtab.models.load import probe


def _across(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, *_: Any, **kwargs: Any
) -> tuple[Tensor, None]:
    """The fault that was met: causal attention over the whole axis, as if all texts were one."""
    out = nn.functional.scaled_dot_product_attention(
        query, key, value, is_causal=True, scale=kwargs.get("scaling"), enable_gqa=True
    )
    return out.transpose(1, 2), None


AttentionInterface.register("test_across", _across)


@pytest.mark.parametrize("k", [1, 2, 3])
@torch.no_grad()
def test_trunk_and_branch_are_the_whole_model(body: Body, batch: FlatBatch, k: int) -> None:
    trunk = trunk_of(body, k)
    whole_TD = body(batch)
    trunk_TD = trunk(batch)
    assert not torch.equal(trunk_TD, whole_TD)
    for copied in (False, True):
        assert torch.equal(branch_of(body, k, copied=copied)(batch, trunk_TD), whole_TD)


@torch.no_grad()
def test_bfloat16_too(family: str, make: Callable[..., PreTrainedModel], batch: FlatBatch) -> None:
    lm = make(family, torch.bfloat16)
    body = Body(decoder_of(lm), probe(lm))
    assert torch.equal(branch_of(body, 2, copied=True)(batch, trunk_of(body, 2)(batch)), body(batch))


@torch.no_grad()
def test_parts_of_a_batch_may_use_kept_activations(body: Body, batch: FlatBatch) -> None:
    trunk_TD = trunk_output(trunk_of(body, 2), batch)
    kept = batch.with_columns(trunk_TD=trunk_TD).select([2, 1])
    fresh = body(batch.select([2, 1]))
    torch.testing.assert_close(branch_of(body, 2, copied=False)(kept, kept["trunk_TD"]), fresh, atol=1e-6, rtol=1e-6)


def test_a_branch_shares_or_copies_as_told_and_holds_no_embeddings(body: Body) -> None:
    whole = {id(p) for p in body.parameters()}
    shared, copied = branch_of(body, 2, copied=False), branch_of(body, 2, copied=True)
    assert {id(p) for p in shared.parameters()} < whole
    assert not {id(p) for p in copied.parameters()} & whole
    vocabulary = cast(int, body.decoder.config.vocab_size)
    assert all(vocabulary not in p.shape for p in [*shared.parameters(), *copied.parameters()])
    trunk = {id(p) for p in trunk_of(body, 2).parameters()}
    assert not trunk & {id(p) for p in shared.parameters()}, "a trained branch must not move the trunk"


def test_splitting_leaves_the_model_as_it_was(body: Body, batch: FlatBatch) -> None:
    before, config, names = body(batch), body.decoder.config.to_dict(), [n for n, _ in body.named_modules()]
    trunk_of(body, 2), branch_of(body, 1, copied=True)
    assert torch.equal(body(batch), before)
    assert body.decoder.config.to_dict() == config
    assert [n for n, _ in body.named_modules()] == names


@pytest.mark.parametrize("k", [0, 4, 5, -1])
def test_a_split_without_a_trunk_is_refused(body: Body, k: int) -> None:
    with pytest.raises(ModelError, match="leaves no trunk"):
        trunk_of(body, k)


@pytest.mark.parametrize("name", ["llama", "gpt2", "opt", "neox", "gemma2"])
def test_a_branch_with_another_attention_is_refused(name: str, make: Callable[..., PreTrainedModel]) -> None:
    lm = make(name)
    body = Body(decoder_of(lm), probe(lm))
    branch = branch_of(body, 2, copied=True)
    check(body, trunk_of(body, 2), branch)
    set_attention(branch, "test_across")
    with pytest.raises(ModelError, match="do not give the whole model's numbers"):
        check(body, trunk_of(body, 2), branch)


def test_a_branch_with_other_weights_is_refused(body: Body) -> None:
    branch = branch_of(body, 2, copied=True)
    with torch.no_grad():
        next(branch.parameters()).view(-1)[0] += 0.5
    with pytest.raises(ModelError, match="do not give the whole model's numbers"):
        check(body, trunk_of(body, 2), branch)


def test_a_bundle_checks_its_split(make: Callable[..., PreTrainedModel], monkeypatch: pytest.MonkeyPatch) -> None:
    """A family whose final norm we do not know would be normed twice."""
    monkeypatch.setattr("trimtab.models.hydra._FINAL_NORMS", ())
    lm = make("llama")
    with pytest.raises(ModelError, match="do not give the whole model's numbers"):
        Bundle(lm, probe(lm), 2)


@torch.no_grad()
def test_a_trained_branch_is_merged_with_its_trunk(body: Body, batch: FlatBatch) -> None:
    branch = branch_of(body, 2, copied=True)
    for parameter in branch.parameters():
        parameter.add_(0.05 * torch.randn_like(parameter))
    before = body(batch)
    whole = merged(body, branch)
    assert torch.equal(whole(batch), branch(batch, trunk_of(body, 2)(batch)))
    assert not torch.equal(whole(batch), before)
    assert torch.equal(body(batch), before), "merging changed the model it started from"
    assert whole.decoder.state_dict().keys() == body.decoder.state_dict().keys()
    assert {id(p) for p in whole.parameters()} <= {id(p) for m in (body, branch) for p in m.parameters()}


@torch.no_grad()
def test_merging_a_part_of_a_bundle(family: str, make: Callable[..., PreTrainedModel], batch: FlatBatch) -> None:
    for k in (2, None):
        lm = make(family)
        bundle = Bundle(lm, probe(lm), k)
        bundle.add_scalar("reward", "last", trained=True)
        head = cast(Any, bundle.parts["reward"]).head
        nn.init.normal_(head.weight)
        for parameter in bundle.trained("reward").values():
            parameter.add_(0.05 * torch.randn_like(parameter))
        score_N = bundle(["reward"], batch)["reward"]["score_N"]
        body = merged_decoder(bundle, "reward")
        assert torch.equal(head(body(batch)[batch.last_T()]).squeeze(-1), score_N)
