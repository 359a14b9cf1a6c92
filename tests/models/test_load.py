"""Loading: the probe decides by numbers, and refuses a model whose numbers it does not understand."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import nn
from transformers import LlamaForSequenceClassification, PreTrainedModel, PreTrainedTokenizerFast

from trimtab.errors import ModelError
from trimtab.models import attention
from trimtab.models.export import save_lm
from trimtab.models.load import _probe_texts, load_lm, load_reward, load_tokenizer, probe
from trimtab.protocols import ModelSpec

from .conftest import CONFIGS, MODES


def replace_forward(lm: PreTrainedModel, change: Callable[[torch.Tensor], torch.Tensor]) -> None:
    """A family whose logits are transformed in a way that its config does not tell."""
    original = lm.forward

    def forward(*args: Any, **kwargs: Any) -> Any:
        out = original(*args, **kwargs)
        out.logits = change(out.logits)
        return out

    lm.forward = forward  # type: ignore[method-assign]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_probe_finds_the_attention(family: str, dtype: torch.dtype, make: Callable[..., PreTrainedModel]) -> None:
    lm = make(family, dtype)
    mode = probe(lm)
    assert mode == MODES.get(family, "flat")
    assert lm.config._attn_implementation == (attention.IMPLEMENTATION if mode == "flat" else "eager")


def test_probe_texts_are_longer_than_a_window(make: Callable[..., PreTrainedModel]) -> None:
    assert max(len(text) for text in _probe_texts(make("mistral"))) > 6
    assert max(len(text) for text in _probe_texts(make("gemma2"))) > 6


@pytest.mark.parametrize(
    "change",
    [lambda x: x * 1.5, lambda x: 2 * torch.tanh(x / 2), lambda x: x + torch.arange(x.shape[-1]) / 50],
    ids=["scaled", "capped", "biased"],
)
@pytest.mark.parametrize("name", ["llama", "bloom"])
def test_unknown_transformations_of_logits_are_refused(
    name: str, change: Callable[[torch.Tensor], torch.Tensor], make: Callable[..., PreTrainedModel]
) -> None:
    lm = make(name)
    replace_forward(lm, change)
    with pytest.raises(ModelError, match="differ from the model's own"):
        probe(lm)


def test_a_constant_added_to_all_logits_is_no_difference(make: Callable[..., PreTrainedModel]) -> None:
    lm = make("llama")
    replace_forward(lm, lambda x: x + 3)
    assert probe(lm) == "flat"


def test_a_family_that_attends_across_texts_falls_back(
    make: Callable[..., PreTrainedModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Should flat attention not be honoured by a family, the padded fallback is found and used."""
    lm = make("llama")

    def across(module: nn.Module, query: Any, key: Any, value: Any, *_: Any, **kwargs: Any) -> Any:
        out = nn.functional.scaled_dot_product_attention(query, key, value, is_causal=True, enable_gqa=True)
        return out.transpose(1, 2), None

    monkeypatch.setitem(cast(Any, attention.AttentionInterface)._global_mapping, attention.IMPLEMENTATION, across)
    assert probe(lm) == "padded"


def test_a_folder_loads(
    make: Callable[..., PreTrainedModel], tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    lm = make("llama")
    save_lm(lm, tokenizer, tmp_path / "model", None, {})
    spec = ModelSpec(str(tmp_path / "model"), dtype="float32")
    loaded = load_lm(spec)
    assert (loaded.mode, loaded.path, loaded.lm.training) == ("flat", str(tmp_path / "model"), False)
    assert load_tokenizer(spec).get_vocab() == loaded.tokenizer.get_vocab() == tokenizer.get_vocab()


def test_what_cannot_be_loaded_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="catalogue name"):
        load_lm(ModelSpec("no-such-model-anywhere"))
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ModelError, match="check the files in"):
        load_lm(ModelSpec(str(tmp_path)))


def classifier(folder: Path, labels: int, tokenizer: PreTrainedTokenizerFast) -> ModelSpec:
    config = CONFIGS["llama"]()
    config.num_labels, config.pad_token_id = labels, 0
    LlamaForSequenceClassification(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return ModelSpec(str(folder), dtype="float32")


def test_any_classifier_with_one_label_is_a_reward_model(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    loaded = load_reward(classifier(tmp_path, 1, tokenizer), "flat")
    assert loaded.head.weight.shape == (1, 32)
    assert loaded.body.decoder.config._attn_implementation == attention.IMPLEMENTATION


def test_other_classifiers_are_not(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no scalar 'score' head"):
        load_reward(classifier(tmp_path, 2, tokenizer), "flat")


def test_a_language_model_has_no_trained_head(
    make: Callable[..., PreTrainedModel], tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    """transformers would give it a random one, which scores as confidently as a trained one."""
    lm = make("llama")
    for labels in (1, 2):
        lm.config.num_labels = labels
        save_lm(lm, tokenizer, tmp_path / "model", None, {})
        with pytest.raises(ModelError, match="no scalar 'score' head"):
            load_reward(ModelSpec(str(tmp_path / "model"), dtype="float32"), "flat")
