"""Load a language model or reward model by catalogue name, Hugging Face id or folder, and probe it.

The probe decides between flat attention and the padded fallback by numbers, not by a list of families: several texts on
one axis must give the same log-probabilities as each text alone in plain transformers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import safe_open
from torch import Tensor, nn
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils.logging import disable_progress_bar

from trimtab.batch import Sequence, flatten
from trimtab.errors import ModelError
from trimtab.models.attention import IMPLEMENTATION
from trimtab.models.bundle import logit_map_of
from trimtab.models.catalogue import resolve
from trimtab.models.flat import Body, Mode, decoder_of, set_attention, set_mode
from trimtab.models.lora import FOLDER as ADAPTER, load_adapter, saved_for
from trimtab.ops.logprob import token_logprob
from trimtab.protocols import ModelSpec
from trimtab.runtime.files import read_json

disable_progress_bar()  # what a terminal shows is one line per stage, and ours to write

_TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 0.02, torch.float16: 0.01}
"""Largest mean difference of a log-probability between two ways of computing it, in nats, beyond three times what two
of transformers' own attentions differ by (in 16 bits that is large on random tokens)."""


@dataclass(frozen=True)
class LoadedLM:
    lm: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    mode: Mode
    path: str


@dataclass(frozen=True)
class LoadedReward:
    """A reward model: the decoder, its head (no bias) and the tokenizer that it reads text with."""

    body: Body
    head: nn.Linear
    tokenizer: PreTrainedTokenizerBase
    path: str


def locate(spec: ModelSpec) -> str:
    """Folder or Hugging Face id behind a spec; a catalogue entry is downloaded and converted the first time."""
    known = resolve(spec.load)
    return str(known) if known is not None else spec.load


def load_tokenizer(spec: ModelSpec) -> PreTrainedTokenizerBase:
    """The tokenizer alone."""
    return _from_pretrained(AutoTokenizer, spec)


def load_lm(spec: ModelSpec, *, device: str = "cpu") -> LoadedLM:
    """A causal language model with attention set by the probe.

    Raises:
        ModelError: it cannot be found or read, or neither attention gives the model's own numbers.
    """
    lm = cast(PreTrainedModel, _from_pretrained(AutoModelForCausalLM, spec, dtype=getattr(torch, spec.dtype)))
    lm.to(device).eval()  # type: ignore[arg-type]
    return LoadedLM(lm, load_tokenizer(spec), probe(lm), locate(spec))


def load_reward(spec: ModelSpec, mode: Mode | None, *, family: str = "", device: str = "cpu") -> LoadedReward:
    """A reward model saved by a reward stage, or any sequence classifier with one label and a ``score`` head.

    Args:
        mode: in which it attends; None = a probe of its own decides.
        family: ``model_type`` for which ``mode`` was found; a model of another one is probed. "" = any.

    Raises:
        ModelError: it cannot be found or read, has no trained scalar head, or neither attention gives its own numbers.
    """
    dtype = getattr(torch, spec.dtype)
    model, info = _from_pretrained(AutoModelForSequenceClassification, spec, dtype=dtype, output_loading_info=True)
    model.to(device).eval()
    head = getattr(model, "score", None)
    # transformers gives a missing head random numbers, which score as confidently as trained ones
    if not isinstance(head, nn.Linear) or head.out_features != 1 or "score.weight" in info["missing_keys"]:
        raise ModelError(
            f"{spec.load} has no scalar 'score' head", fix="give a reward stage, or a one-label classifier"
        )
    path = Path(locate(spec))
    _as_saved(path, model)
    if mode is None or (family and model.config.model_type != family):
        mode = probe_decoder(decoder_of(model))
    set_mode(model, mode)
    return LoadedReward(Body(decoder_of(model), mode), head, load_tokenizer(spec), str(path))


def load_reward_on(loaded: LoadedLM, spec: ModelSpec) -> LoadedReward | None:
    """A reward model that was trained as an adapter on this very model, as one: it shares all tensors but its own.

    None if its folder holds no adapter, or one of another base (known by the tensors' hash).
    """
    folder = Path(locate(spec))
    if not saved_for(folder, decoder_of(loaded.lm)):
        return None
    decoder, head = load_adapter(folder / ADAPTER, loaded.lm)
    if head is None:
        raise ModelError(f"the adapter in {folder} has no head", fix="give a reward stage")
    return LoadedReward(Body(decoder, loaded.mode), head, load_tokenizer(spec), str(folder))


@torch.no_grad()
def _as_saved(path: Path, model: Any) -> None:
    """Undo what plain loading does to one of our folders: the head's float32 was rounded to the decoder's dtype, and
    an added padding token made the embedding one row longer than the policy's."""
    model.score.float()
    for file in sorted(path.glob("*.safetensors")):
        with safe_open(file, "pt") as tensors:
            if "score.weight" in tensors.keys():  # noqa: SIM118  (a safetensors handle, not a mapping)
                model.score.weight.copy_(tensors.get_tensor("score.weight"))
    sidecar = path / "trimtab.json"
    rows = read_json(sidecar).get("vocabulary") if sidecar.is_file() else None
    embedding = model.get_input_embeddings()
    if rows is not None and rows < embedding.weight.shape[0]:
        embedding.weight = nn.Parameter(embedding.weight[:rows].clone(), requires_grad=False)
        embedding.num_embeddings = decoder_of(model).config.vocab_size = rows
        if embedding.padding_idx is not None and embedding.padding_idx >= rows:
            embedding.padding_idx = None


def _from_pretrained(factory: Any, spec: ModelSpec, **kwargs: Any) -> Any:
    where = locate(spec)
    try:
        return factory.from_pretrained(where, revision=spec.revision or "main", **kwargs)
    except (OSError, ValueError) as error:
        fix = "give a catalogue name (trimtab models), a Hugging Face id or a folder with config.json"
        if Path(where).is_dir():
            fix = f"check the files in {where}"
        raise ModelError(f"cannot load {spec.load}: {str(error).splitlines()[0]}", fix=fix) from error


def _probe_texts(lm: PreTrainedModel) -> list[list[int]]:
    vocabulary = cast(int, lm.config.vocab_size)
    lengths = [7, 12, 4]
    window = getattr(lm.config, "sliding_window", None)
    if window and window <= 512:
        lengths.append(window + 9)
    return [[(31 + 17 * i + 101 * row) % vocabulary for i in range(n)] for row, n in enumerate(lengths)]


@torch.no_grad()
def _alone(lm: PreTrainedModel, texts: list[list[int]]) -> Tensor:
    """Log-probabilities of every token but the first, each text alone in plain transformers."""
    device = next(lm.parameters()).device
    parts = []
    for text in texts:
        ids = torch.tensor([text], device=device)
        logits = lm(input_ids=ids, use_cache=False).logits[0, :-1].float()
        parts.append(logits.log_softmax(-1).gather(-1, ids[0, 1:, None]).squeeze(-1))
    return torch.cat(parts)


@torch.no_grad()
def _ours(lm: PreTrainedModel, texts: list[list[int]], mode: Mode) -> Tensor:
    batch = flatten([Sequence(ids=t, act=[False] + [True] * (len(t) - 1)) for t in texts])
    batch = batch.to(next(lm.parameters()).device)
    hidden_TD = Body(decoder_of(lm), mode)(batch)
    at_A = batch.act_T.nonzero().squeeze(-1)
    head = cast(Any, lm.get_output_embeddings())
    logp_A, _ = token_logprob(
        hidden_TD[batch.prev_T[at_A]],
        head.weight,
        getattr(head, "bias", None),
        batch.ids_T[at_A],
        logit_map=logit_map_of(lm.config),
    )
    return logp_A


@torch.no_grad()
def _alone_hidden(decoder: PreTrainedModel, texts: list[list[int]]) -> Tensor:
    device = next(decoder.parameters()).device
    parts = [decoder(input_ids=torch.tensor([t], device=device), use_cache=False).last_hidden_state[0] for t in texts]
    return _in_mean_sizes(torch.cat(parts))


@torch.no_grad()
def _ours_hidden(decoder: PreTrainedModel, texts: list[list[int]], mode: Mode) -> Tensor:
    batch = flatten([Sequence(ids=t, act=[False] * len(t)) for t in texts]).to(next(decoder.parameters()).device)
    return _in_mean_sizes(Body(decoder, mode)(batch))


def _in_mean_sizes(hidden_TD: Tensor) -> Tensor:
    return hidden_TD.float() / hidden_TD.float().abs().mean()


def probe(lm: PreTrainedModel) -> Mode:
    """The mode in which this model gives its own numbers; leaves its attention set for it.

    Raises:
        ModelError: neither the flat forward nor the padded fallback does.
    """
    return _choose(lm, _alone, _ours, "log-probabilities", "nats")


def probe_decoder(decoder: PreTrainedModel) -> Mode:
    """``probe`` by hidden states, for a decoder without an output embedding (a reward model's)."""
    return _choose(decoder, _alone_hidden, _ours_hidden, "hidden states", "of their mean size")


_Texts = list[list[int]]


def _choose(
    model: PreTrainedModel,
    alone: Callable[[PreTrainedModel, _Texts], Tensor],
    ours: Callable[[PreTrainedModel, _Texts, Mode], Tensor],
    what: str,
    unit: str,
) -> Mode:
    texts = _probe_texts(model)
    set_attention(model, "eager")  # independent of both candidates
    truth = alone(model, texts)
    tolerance = _TOLERANCE[model.dtype]
    if getattr(model, "_supports_sdpa", False):
        set_attention(model, "sdpa")
        tolerance += 3 * float((alone(model, texts) - truth).abs().mean())
    gaps = {}
    for mode in ("flat", "padded"):
        try:
            set_mode(model, mode)
            gap = float((ours(model, texts, mode) - truth).abs().mean())
        except (ModelError, TypeError, ValueError, RuntimeError) as error:
            gaps[mode] = str(error).splitlines()[0]
            continue
        if gap <= tolerance:
            return mode
        gaps[mode] = f"mean difference {gap:.3g} {unit}"
    raise ModelError(
        f"{type(model).__name__}: {what} differ from the model's own ({gaps}; bound {tolerance})",
        fix=f"report this family; attention {IMPLEMENTATION} and the padded fallback were tried",
    )
