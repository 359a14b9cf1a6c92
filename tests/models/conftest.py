"""Tiny random models of the families that Trimtab promises, and tokenizers that need no download."""

from __future__ import annotations

import string
from collections.abc import Callable
from typing import cast

import pytest
import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from trimtab.batch import FlatBatch, Sequence, flatten
from trimtab.models.flat import Body, decoder_of
from trimtab.models.load import probe

from .families import CONFIGS as CONFIGS, MODES as MODES, VOCABULARY, make_lm

LENGTHS = (7, 12, 4, 1)


FEW = ("bloom", "gemma2", "gpt2", "llama", "mistral", "neox", "opt", "qwen3")
"""Families that between them have every trait that code here could trip over; test_families.py has them all."""


@pytest.fixture(params=FEW)
def family(request: pytest.FixtureRequest) -> str:
    return cast(str, request.param)


@pytest.fixture
def make() -> Callable[..., PreTrainedModel]:
    return make_lm


@pytest.fixture
def body(family: str) -> Body:
    lm = make_lm(family)
    return Body(decoder_of(lm), probe(lm))


def rows(lengths: tuple[int, ...] = LENGTHS) -> list[Sequence]:
    """Texts whose second half (at least one token, where there are two) was sampled."""
    generator = torch.Generator().manual_seed(3)
    made = []
    for number, n in enumerate(lengths):
        ids = torch.randint(3, VOCABULARY, (n,), generator=generator).tolist()
        made.append(Sequence(ids=ids, act=[i > 0 and i >= n // 2 for i in range(n)], id=f"row-{number}"))
    return made


@pytest.fixture
def texts() -> list[Sequence]:
    return rows()


@pytest.fixture
def batch(texts: list[Sequence]) -> FlatBatch:
    return flatten(texts)


@torch.no_grad()
def alone(lm: PreTrainedModel, texts: list[Sequence]) -> tuple[Tensor, Tensor]:
    """Hidden states and log-probabilities of every text by itself, in transformers' plainest attention."""
    lm.set_attn_implementation("eager")
    hidden, logp = [], []
    for text in texts:
        ids = torch.tensor([list(text.ids)])
        hidden.append(lm.base_model(input_ids=ids, use_cache=False).last_hidden_state[0])
        logits = lm(input_ids=ids, use_cache=False).logits[0].float()
        taken = logits[:-1].log_softmax(-1).gather(-1, ids[0, 1:, None]).squeeze(-1)
        logp.append(torch.cat([taken.new_zeros(1), taken]) * torch.tensor(list(text.act)))
    return torch.cat(hidden), torch.cat(logp)


CHATML = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def make_tokenizer(
    special: tuple[str, ...] = ("<|endoftext|>", "<|im_start|>", "<|im_end|>"),
) -> PreTrainedTokenizerFast:
    """One token per character; the last of ``special`` ends texts and pads, as in SmolLM2 and GPT-2."""
    characters = (string.ascii_letters + string.digits + string.punctuation + " \n")[: VOCABULARY - len(special) - 1]
    vocabulary = {token: i for i, token in enumerate([*special, *dict.fromkeys(characters), "\n"])}
    core = Tokenizer(models.WordLevel(vocabulary, unk_token=special[0]))
    core.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    core.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        eos_token=special[-1],
        pad_token=special[-1],
        unk_token=special[0],
        bos_token=special[min(1, len(special) - 1)],
        chat_template=CHATML.replace("<|im_end|>", special[-1]),
    )


@pytest.fixture
def tokenizer() -> PreTrainedTokenizerFast:
    return make_tokenizer()
