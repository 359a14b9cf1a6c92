"""Tiny random models of every family that Trimtab promises, with windows shorter than the tests' texts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from transformers import (
    AutoModelForCausalLM,
    BloomConfig,
    FalconConfig,
    Gemma2Config,
    Gemma3TextConfig,
    GPT2Config,
    GPTJConfig,
    GPTNeoXConfig,
    LlamaConfig,
    MistralConfig,
    OPTConfig,
    PhiConfig,
    PreTrainedModel,
    Qwen2Config,
    Qwen3Config,
)

VOCABULARY, LAYERS = 97, 4
_SMALL = {"vocab_size": VOCABULARY, "hidden_size": 32, "num_hidden_layers": LAYERS, "num_attention_heads": 4}
_GATED = {**_SMALL, "intermediate_size": 64, "num_key_value_heads": 2}
_OLDER = {"vocab_size": VOCABULARY, "n_embd": 32, "n_layer": LAYERS, "n_head": 4, "n_positions": 128}
_ENDS = {"bos_token_id": 1, "eos_token_id": 2}
_OPT = {**_SMALL, "ffn_dim": 64, "max_position_embeddings": 128}
_CAPS = {"attn_logit_softcapping": 4.0, "final_logit_softcapping": 3.0}
_MIXED = ["sliding_attention", "full_attention"] * 2
CONFIGS: dict[str, Callable[[], Any]] = {
    "llama": lambda: LlamaConfig(**_GATED, tie_word_embeddings=True),
    "qwen2": lambda: Qwen2Config(**_GATED, use_sliding_window=True, sliding_window=6, max_window_layers=2),
    "qwen3": lambda: Qwen3Config(**_GATED, head_dim=8),
    "mistral": lambda: MistralConfig(**_GATED, sliding_window=6),
    "gemma2": lambda: Gemma2Config(**_GATED, head_dim=8, sliding_window=6, **_CAPS),
    "gemma3": lambda: Gemma3TextConfig(**_GATED, head_dim=8, sliding_window=6, layer_types=_MIXED),
    "gpt2": lambda: GPT2Config(**_OLDER, **_ENDS),
    "gptj": lambda: GPTJConfig(**_OLDER, rotary_dim=4, **_ENDS),
    "neox": lambda: GPTNeoXConfig(**_SMALL, intermediate_size=64),
    "opt": lambda: OPTConfig(**_OPT, word_embed_proj_dim=32),
    "bloom": lambda: BloomConfig(vocab_size=VOCABULARY, hidden_size=32, n_layer=LAYERS, n_head=4),
    "phi": lambda: PhiConfig(**_SMALL, intermediate_size=64, partial_rotary_factor=0.5, **_ENDS),
    "falcon": lambda: FalconConfig(**_SMALL),
}
VARIANTS: dict[str, Callable[[], Any]] = {
    "opt-350m": lambda: OPTConfig(**_OPT, word_embed_proj_dim=16, do_layer_norm_before=False),
    "falcon-rw": lambda: FalconConfig(**_SMALL, alibi=True, bias=True, multi_query=False, parallel_attn=False),
    "falcon-40b": lambda: FalconConfig(**_SMALL, new_decoder_architecture=True, num_kv_heads=2),
}
"""Members of a family that are built otherwise: projections around the layers, ALiBi, grouped keys."""
NAMES = {
    "llama": "Llama (SmolLM2, ...)",
    "qwen2": "Qwen2, Qwen2.5",
    "qwen3": "Qwen3",
    "mistral": "Mistral",
    "gemma2": "Gemma 2",
    "gemma3": "Gemma 3 (text)",
    "gpt2": "GPT-2",
    "gptj": "GPT-J",
    "neox": "GPT-NeoX, Pythia",
    "opt": "OPT",
    "opt-350m": "OPT-350m",
    "bloom": "BLOOM",
    "phi": "Phi-1, Phi-2",
    "falcon": "Falcon-7b",
    "falcon-rw": "Falcon-RW",
    "falcon-40b": "Falcon-40b, -11b",
}
ALL = {name: (CONFIGS | VARIANTS)[name] for name in NAMES}
MODES = dict.fromkeys(("bloom", "falcon", "falcon-rw", "falcon-40b", "gptj"), "padded")
"""What the probe is expected to find; all others attend flat."""


def make_lm(family: str, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    """A random model whose matrices are large enough that a fault in attention shows in the first digits."""
    torch.manual_seed(11)
    lm = AutoModelForCausalLM.from_config(ALL[family](), dtype=torch.float32)
    with torch.no_grad():
        for parameter in lm.parameters():
            if parameter.dim() > 1:
                parameter.mul_(4)
            else:
                parameter.add_(0.1 * torch.randn_like(parameter))
    for parameter in lm.parameters():  # not .to(dtype): rotary frequencies stay in float32, as in any loaded model
        parameter.data = parameter.data.to(dtype)
    lm.config.dtype = dtype
    return lm.eval()
