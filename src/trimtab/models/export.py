"""Save models as plain Hugging Face folders that need nothing of ours: a chat model, a sequence classifier.

``AutoModelForCausalLM`` and ``AutoModelForSequenceClassification`` load them with attention of their own choice. Beside
their files lies ``trimtab.json``: what later stages inherit (branch, template, dtype) and the weights' hash.

transformers' classifier reads the last token that is not padding. So an exported reward model has a padding token that
ends nothing, and a chat template that stops at the end token; then its score is ours, alone and in padded batches.
"""

from __future__ import annotations

import contextlib
import copy
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import (
    MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING,
    GenerationConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from trimtab.errors import ModelError
from trimtab.models.bundle import Bundle, LMPart, ScalarPart
from trimtab.models.flat import Body
from trimtab.models.hydra import check, merged
from trimtab.models.lora import FOLDER as ADAPTER, adapters, merged as with_adapter_merged, save_adapter
from trimtab.runtime.files import atomic_dir, sha256_bytes, sha256_file, write_json

SIDECAR = "trimtab.json"
Beside = Callable[[Path], None]
PAD_TOKEN = "<|pad|>"
"""Added to a tokenizer in which every special token ends something (GPT-2 has one special token)."""


def save_lm(
    lm: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    folder: Path,
    chat_template: str | None,
    sidecar: Mapping[str, Any],
    *,
    end_ids: Iterable[int] = (),
    beside: Beside | None = None,
) -> str:
    """A chat model's folder, atomically: weights in the model's dtype, tokenizer, template, generation settings.

    Args:
        chat_template: the template it was trained with; None = the tokenizer's own.
        sidecar: goes to ``trimtab.json``, with ``weights`` (the returned hash) added.
        end_ids: tokens that end a turn of this template; ``generate`` stops at them, and at those it stopped at before.
        beside: writes more into the folder before it appears under its name (``adapter_of``).

    Returns:
        sha256 (hex) of the weights.
    """
    with atomic_dir(folder) as temporary:
        with _generation_config(lm, tokenizer, end_ids):
            _save_weights(lm, temporary)
        _with_template(tokenizer, chat_template).save_pretrained(temporary)
        return _finish(temporary, sidecar, beside)


def adapter_of(bundle: Bundle, part: str, loaded_from: str) -> Beside | None:
    """What writes a part's adapter beside the model that it is merged into; None where the bundle has no adapters."""
    if bundle.lora is None:
        return None
    module = cast("LMPart | ScalarPart", bundle.parts[part])
    head = module.head if isinstance(module, ScalarPart) else None

    def write(folder: Path) -> None:
        save_adapter(folder / ADAPTER, module.body.decoder, base=bundle.lm, loaded_from=loaded_from, head=head)

    return write


def save_reward(
    body: Body,
    head: nn.Linear,
    tokenizer: PreTrainedTokenizerBase,
    folder: Path,
    chat_template: str | None,
    sidecar: Mapping[str, Any],
    *,
    end_ids: Iterable[int],
    pad_id: int | None = None,
    beside: Beside | None = None,
) -> str:
    """A reward model's folder, atomically: a sequence classifier with one label that gives our scores.

    The template is made to stop at the end token here. The head stays in float32 whatever the decoder's dtype is: a
    score is a small difference of large numbers.

    Args:
        body: the whole decoder; for a branch on a trunk, ``merged_decoder`` of it.
        head: [D] -> one score, without bias (the classifier has none; an offset belongs into the sidecar).
        chat_template: the template it was trained with; None = the tokenizer's own.
        end_ids: tokens that end a turn; the first is the one the template writes.
        pad_id: a special token that ends nothing. None, or an ordinary word of the vocabulary (which a tokenizer
            would cut out of texts once it pads): one is chosen, or added.
        beside: as in ``save_lm``.

    Returns:
        sha256 (hex) of the weights.

    Raises:
        ModelError: transformers has no sequence classifier for this family, ``pad_id`` ends a turn, the head has a
            bias, or there is no template.
    """
    end_ids = tuple(end_ids)
    if not end_ids:
        raise ModelError("a reward model needs the token that ends an answer", fix="give end_ids")
    if head.bias is not None or head.out_features != 1:
        raise ModelError("a reward head is one output without bias", fix="put the offset into the sidecar")
    tokenizer = _with_template(tokenizer, chat_template)
    if not isinstance(tokenizer.chat_template, str):
        raise ModelError("a reward model needs one chat template", fix="name one: models: {<name>: {template: chatml}}")
    end_token = cast(str, tokenizer.convert_ids_to_tokens(end_ids[0]))
    tokenizer.chat_template = stop_at_end(tokenizer.chat_template, end_token)
    pad_id = _set_padding(tokenizer, end_ids, pad_id)
    model = _classifier(body.decoder, head, pad_id)
    with atomic_dir(folder) as temporary:
        _save_weights(model, temporary)
        tokenizer.save_pretrained(temporary)
        # a padding token that was added gave the embedding a row, which ``load_reward`` takes away again
        return _finish(temporary, {**sidecar, "vocabulary": cast(int, body.decoder.config.vocab_size)}, beside)


def merged_decoder(bundle: Bundle, part: str) -> Body:
    """The whole decoder of one part: trunk layers, then the part's own layers and norm. Shares tensors, copies nothing.
    With an adapter: a copy of the base's adapted matrices, the adapter added; the base is never written to.

    Raises:
        ModelError: it does not give the part's numbers bit for bit.
    """
    module = cast("LMPart | ScalarPart", bundle.parts[part])
    if adapters(module.body):
        return Body(with_adapter_merged(module.body.decoder), module.body.mode)
    if not module.on_trunk:
        return module.body
    body = merged(bundle.whole, module.body)
    check(body, cast(Body, bundle.trunk), module.body)
    return body


def stop_at_end(template: str, end_token: str) -> str:
    """A chat template whose text stops right after the last end token (many go on with a newline).

    The template is rendered into a variable and cut there, so it may be of any make. With ``add_generation_prompt``
    it is left whole. ``{% generation %}`` marks are taken out: inside a variable their places would be wrong.
    """
    inner = _GENERATION.sub(lambda mark: f"{mark[1]} {'endif' if mark[2] else 'if true'} {mark[3]}", template)
    inner = inner.removesuffix("\n").removesuffix("\r")  # jinja drops one final newline of a source: so do we
    # Jinja trims one newline after a block tag, so the template still begins a line; the empty expression keeps its
    # trimming before a tag off the template's last characters.
    return (
        "{% set trimtab_text %}\n" + inner + "{{ '' }}{% endset %}"
        f"{{%- set trimtab_end = {_jinja_string(end_token)} -%}}"
        "{%- if add_generation_prompt or trimtab_end not in trimtab_text -%}{{ trimtab_text }}"
        "{%- else -%}{{ trimtab_text.rsplit(trimtab_end, 1)[0] + trimtab_end }}{%- endif -%}"
    )


_GENERATION = re.compile(r"(\{%[-+]?)\s*(end)?generation\s*([-+]?%\})")


def _jinja_string(text: str) -> str:
    return '"' + text.encode("unicode_escape").decode().replace('"', '\\"') + '"'


def _with_template(tokenizer: PreTrainedTokenizerBase, chat_template: str | None) -> PreTrainedTokenizerBase:
    own = copy.deepcopy(tokenizer)
    if chat_template is not None:
        own.chat_template = chat_template
    return own


def _set_padding(tokenizer: PreTrainedTokenizerBase, end_ids: tuple[int, ...], pad_id: int | None) -> int:
    """Make a special token that ends nothing the padding token; the tokenizer is changed, its id returned."""
    special = [i for i in (tokenizer.pad_token_id, tokenizer.unk_token_id) if isinstance(i, int)]
    special += sorted(tokenizer.all_special_ids) + sorted(getattr(tokenizer, "added_tokens_decoder", {}))
    ending = {*end_ids, cast("int | None", tokenizer.eos_token_id)}
    free = [i for i in special if i not in ending and _is_special(tokenizer, i)]
    if pad_id in ending:
        raise ModelError(
            f"token {pad_id} cannot pad a reward model: it ends a turn, so scores would be read before it",
            fix=f"use one of {sorted(set(free))}" if free else "leave it out: one will be added",
        )
    if pad_id not in free:
        pad_id = free[0] if free else None
    if pad_id is None:
        tokenizer.add_special_tokens({"pad_token": PAD_TOKEN})
    else:
        tokenizer.pad_token = cast(str, tokenizer.convert_ids_to_tokens(pad_id))
    tokenizer.padding_side = "right"  # learned positions would be shifted by padding on the left
    return cast(int, tokenizer.pad_token_id)


def _is_special(tokenizer: PreTrainedTokenizerBase, token: int) -> bool:
    """Never cut out of running text as an ordinary word would be, once it is the padding token."""
    added = getattr(tokenizer, "added_tokens_decoder", {}).get(token)
    return token in tokenizer.all_special_ids or (added is not None and added.special)


def _classifier(decoder: PreTrainedModel, head: nn.Linear, pad_id: int) -> PreTrainedModel:
    """The family's sequence classifier around the decoder's own tensors."""
    config = copy.deepcopy(decoder.config)
    config.num_labels, config.pad_token_id = 1, pad_id
    config._attn_implementation = None
    kind = cast(Any, MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING).get(type(config), None)
    if kind is None:
        raise ModelError(
            f"transformers has no sequence classifier for {type(config).__name__}", fix="choose another base model"
        )
    weights = {f"{kind.base_model_prefix}.{name}": tensor for name, tensor in decoder.state_dict().items()}
    embedding = decoder.get_input_embeddings()
    if pad_id >= cast(Tensor, embedding.weight).shape[0]:
        config.vocab_size = pad_id + 1
        weights |= _grown(decoder, kind.base_model_prefix, pad_id + 1)
    with torch.device("meta"):
        model = kind(config)
    if not isinstance(getattr(model, "score", None), nn.Linear) or model.score.bias is not None:
        raise ModelError(f"{kind.__name__} has no plain 'score' head", fix="choose another base model")
    model.load_state_dict({**weights, "score.weight": head.weight.detach().float()}, strict=True, assign=True)
    return cast(PreTrainedModel, model)


def _grown(decoder: PreTrainedModel, prefix: str, rows: int) -> dict[str, Tensor]:
    """The input embedding with zero rows added for a padding token beyond the vocabulary; nothing ever reads them."""
    table = cast(Tensor, decoder.get_input_embeddings().weight).detach()
    name = next(n for n, p in decoder.named_parameters() if p is decoder.get_input_embeddings().weight)
    return {f"{prefix}.{name}": torch.cat([table, table.new_zeros(rows - table.shape[0], table.shape[1])])}


@contextlib.contextmanager
def _generation_config(
    lm: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, end_ids: Iterable[int]
) -> Iterator[None]:
    """For the time of saving, the model's generation settings with every token that ends a turn."""
    kept = lm.generation_config
    own = GenerationConfig.from_model_config(lm.config) if kept is None else copy.deepcopy(kept)
    before = own.eos_token_id if isinstance(own.eos_token_id, list) else [own.eos_token_id]
    ends = list(dict.fromkeys(i for i in (*end_ids, *before, tokenizer.eos_token_id) if isinstance(i, int)))
    own.eos_token_id = cast(Any, (ends[0] if len(ends) == 1 else ends) if ends else None)
    if own.pad_token_id is None:
        own.pad_token_id = cast("int | None", tokenizer.pad_token_id)
    try:
        own.validate(strict=True)
    except ValueError:  # sampling settings without do_sample: transformers loads them, but refuses to save them
        own.do_sample = True
    lm.generation_config = own
    try:
        yield
    finally:
        lm.generation_config = kept


def _save_weights(model: PreTrainedModel, folder: Path) -> None:
    if getattr(model.config, "quantization_config", None) is not None:
        raise ModelError("a quantised model cannot be saved", fix="load it through the catalogue, which dequantises it")
    model.save_pretrained(folder)


def _finish(folder: Path, sidecar: Mapping[str, Any], beside: Beside | None) -> str:
    """Hash the weights and write the sidecar, and what comes beside them."""
    parts = sorted(folder.glob("*.safetensors"))
    hashes = [sha256_file(part) for part in parts]
    weights = hashes[0] if len(parts) == 1 else sha256_bytes("\n".join(hashes).encode())
    write_json(folder / SIDECAR, {**sidecar, "weights": weights})
    if beside is not None:
        beside(folder)
    return weights
