"""Tiny random language models, and what the learner says of a sampler's answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence as Seq
from typing import Any, cast

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, BloomConfig, Gemma2Config, GPT2Config, LlamaConfig, PreTrainedModel

from trimtab.batch import Sequence, flatten
from trimtab.models.bundle import Bundle
from trimtab.models.flat import Mode
from trimtab.protocols import TokenPrompt
from trimtab.records import Completion
from trimtab.sampling.local import LocalSampler

VOCABULARY = 61
END = 2
_GATED: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
CONFIGS: dict[str, Callable[[int], Any]] = {
    "llama": lambda v: LlamaConfig(vocab_size=v, **_GATED),
    "gpt2": lambda v: GPT2Config(
        vocab_size=v, n_embd=32, n_layer=2, n_head=4, n_positions=160, bos_token_id=1, eos_token_id=END
    ),
    "bloom": lambda v: BloomConfig(vocab_size=v, hidden_size=32, n_layer=2, n_head=4),
    # a window shorter than the texts, and caps on scores and logits
    "gemma2": lambda v: Gemma2Config(
        vocab_size=v, **_GATED, head_dim=8, sliding_window=6, attn_logit_softcapping=2.0, final_logit_softcapping=4.0
    ),
}
MODES: dict[str, Mode] = {"bloom": "padded"}


def make_lm(family: str = "llama", dtype: torch.dtype = torch.float32, vocabulary: int = VOCABULARY) -> PreTrainedModel:
    torch.manual_seed(5)
    lm = AutoModelForCausalLM.from_config(CONFIGS[family](vocabulary))
    with torch.no_grad():
        for parameter in lm.parameters():
            if parameter.dim() > 1:
                parameter.mul_(8)  # attention that matters, and distributions that are far from flat
        cast(Any, lm.get_output_embeddings()).weight.mul_(2)
    return lm.to(dtype).eval()


def _silent(line: str) -> None:
    pass


def _unexpected(line: str) -> None:
    raise AssertionError(f"the sampler had to say: {line}")


def make_sampler(lm: PreTrainedModel, **given: Any) -> LocalSampler:
    """Eight slots; a text is its ids as two-digit numbers, so that stop strings can be spelled."""
    mode = MODES.get(lm.config.model_type, "flat")
    settings: dict[str, Any] = {
        "end_ids": (END,),
        "decode": lambda ids: " ".join(f"{i:02d}" for i in ids),
        "slots": 8,
        "say": _silent if mode == "padded" else _unexpected,
    }
    return LocalSampler(lm, mode, **{**settings, **given})


def make_prompts(n: int, prefill: bool = True) -> list[TokenPrompt]:
    """Prompts of 1 to 24 tokens, some with a prefill, several with the same conversation before it."""
    prompts = []
    for i in range(n):
        conversation = tuple((7 * (i % 3) + 3 * j + 5) % VOCABULARY for j in range(1 + 5 * (i % 4)))
        begun = tuple((11 * i + 5 * j) % VOCABULARY for j in range(i % 10)) if prefill else ()
        prompts.append(TokenPrompt(f"p{i}", (*conversation, *begun), prefill=len(begun)))
    return prompts


@torch.no_grad()
def learner_logps(lm: PreTrainedModel, answers: Seq[Completion], temperature: float) -> list[Tensor]:
    """What the policy that is trained gives to each answer's tokens at a temperature: the learner's side of parity."""
    bundle = Bundle(lm, MODES.get(lm.config.model_type, "flat"), None)
    bundle.add_policy()
    rows = [Sequence([*a.prompt_ids, *a.ids], [False] * len(a.prompt_ids) + [True] * len(a.ids)) for a in answers]
    batch = flatten(rows)
    logp_T = bundle(["policy"], batch, temperature=temperature)["policy"]["logp_T"]
    return [logp_T[(batch.sequence_T == n) & batch.act_T] for n in range(len(answers))]


@pytest.fixture(params=["llama", "gpt2", "bloom", "gemma2"])
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def make() -> Callable[..., PreTrainedModel]:
    return make_lm


@pytest.fixture
def sampler_of() -> Callable[..., LocalSampler]:
    return make_sampler


@pytest.fixture
def prompts_of() -> Callable[..., list[TokenPrompt]]:
    return make_prompts


@pytest.fixture
def learner() -> Callable[..., list[Tensor]]:
    return learner_logps
