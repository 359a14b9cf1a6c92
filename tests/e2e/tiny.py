"""A tiny random chat model as a plain Hugging Face folder, and a folder in which ``tiny_chain`` can be run.

Everything is made here: configuration, weights from a seed, a tokenizer learned from the fixture's own sentences.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoModelForCausalLM, BloomConfig, GPT2Config, LlamaConfig, PreTrainedTokenizerFast

FIXTURE = Path(__file__).resolve().parents[1] / "fixtures" / "tiny_chain"
VOCABULARY = 384
BOS, END = "<s>", "<end>"
CHAT = (
    "{{ bos_token }}{% for m in messages %}{{ m['role'] + ':' + m['content'] + eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'assistant:' }}{% endif %}"
)
_SAME = {"vocab_size": VOCABULARY, "bos_token_id": 0, "eos_token_id": 1}
CONFIGS: Mapping[str, Any] = {
    "llama": lambda: LlamaConfig(
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=3,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=128,
        tie_word_embeddings=True,
        **_SAME,
    ),
    "gpt2": lambda: GPT2Config(n_embd=16, n_layer=3, n_head=2, n_positions=128, **_SAME),
    "bloom": lambda: BloomConfig(hidden_size=16, n_layer=3, n_head=2, **_SAME),
}
"""Llama attends flat; GPT-2 has learned positions; BLOOM's attention needs the padded fallback."""


def sentences() -> list[str]:
    """Every text of the fixture."""

    def texts(value: Any) -> list[str]:
        if isinstance(value, str):
            return [value]
        return [text for item in value for text in texts(item)] if isinstance(value, list) else []

    lines = [line for file in sorted(FIXTURE.glob("*.jsonl")) for line in file.read_text("utf-8").splitlines()]
    return [text for line in lines for value in json.loads(line).values() for text in texts(value)]


def tokenizer() -> PreTrainedTokenizerFast:
    """Bytes and merges learned from the fixture: most of its words are one token, and any text can be written."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[BOS, END],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    backend.train_from_iterator(sentences(), trainer)
    made = PreTrainedTokenizerFast(tokenizer_object=backend, bos_token=BOS, eos_token=END)
    made.chat_template = CHAT
    return made


def save_model(folder: Path, family: str = "llama", dtype: torch.dtype = torch.float32, ends: float = 0.0) -> None:
    """A random model of the family with its tokenizer; the same bytes every time.

    ``ends``: about this probability of the end token at any place, so that answers have different lengths; 0 = what
    comes of random weights, which is next to never. Only for a model whose output embedding is its input embedding.
    """
    with torch.random.fork_rng():
        torch.manual_seed(11)
        lm = AutoModelForCausalLM.from_config(CONFIGS[family]())
    with torch.no_grad():
        for parameter in lm.parameters():
            if parameter.dim() > 1:
                parameter.mul_(4)  # far enough from uniform that answers differ
    made = tokenizer()
    if ends:
        _let_end(lm, made, ends)
    lm.to(dtype).save_pretrained(folder)
    made.save_pretrained(folder)


@torch.no_grad()
def _let_end(lm: Any, made: PreTrainedTokenizerFast, probability: float) -> None:
    """Turn the end token's embedding to where hidden states are, as far as gives it the mean probability."""
    texts = [made(text, return_tensors="pt").input_ids for text in sentences()[:20]]
    hidden_TD = torch.cat([lm.model(ids).last_hidden_state[0] for ids in texts])
    row_V, direction_D = lm.get_input_embeddings().weight, hidden_TD.mean(0)
    low, high = 0.0, 100.0
    for _ in range(40):
        scale = (low + high) / 2
        row_V[1] = scale * direction_D
        found = float((hidden_TD @ row_V.T).softmax(-1)[:, 1].mean())
        low, high = (scale, high) if found < probability else (low, scale)


def lay_out(folder: Path, family: str = "llama", recipe: str = "recipe.yaml") -> Path:
    """A folder with the data, the recipe and the model ``base``, to run in; returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for file in FIXTURE.glob("*.jsonl"):
        shutil.copy(file, folder)
    shutil.copy(FIXTURE / recipe, folder / "recipe.yaml")
    save_model(folder / "base", family, ends=0.2 if recipe == "recipe.yaml" and family == "llama" else 0.0)
    return folder


def checkpoint_of(path: Path) -> str:
    """Version of the checkpoint that a file belongs to, or ""."""
    parts = path.parts
    return parts[parts.index("checkpoints") + 1] if "checkpoints" in parts else ""


def content(run: Path) -> dict[str, bytes]:
    """What a run promises to be the same, byte for byte, however often it was broken.

    That is every file but those with clock times (``events.jsonl``, ``report.html``), the lock, and all checkpoints of
    a stage but its last: which earlier ones exist depends on when they were due, and what was damaged is set aside.
    """
    files = [path for path in sorted(run.rglob("*")) if path.is_file()]
    last: dict[Path, str] = {}
    for path in files:
        if (version := checkpoint_of(path.relative_to(run))).isdigit():
            stage = run / path.relative_to(run).parts[1]
            last[stage] = max(last.get(stage, ""), version)
    kept = {}
    for path in files:
        name = path.relative_to(run)
        version = checkpoint_of(name)
        if name.name in ("events.jsonl", "report.html", ".lock"):
            continue
        if version and version != last[run / name.parts[1]]:
            continue
        kept[name.as_posix()] = path.read_bytes()
    return kept
