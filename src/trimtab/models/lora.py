"""Low-rank adapters (LoRA, arXiv 2106.09685) on one frozen base: the one file that imports PEFT.

A model with an adapter is a *twin* of its base: other module objects around the same tensors, and PEFT's layers in
place of the matrices that are adapted. So nothing is ever switched on or off: the reference is the base itself, policy,
value and reward are twins of it, all of them may take part in one backward pass, and a sampler that is handed the
policy's twin reads the very tensors that are trained.

Merging makes one more twin, whose adapted matrices are new tensors (W + α/r · BA, summed in float32): the base is never
written to.
"""

from __future__ import annotations

import copy
import hashlib
import importlib
import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from trimtab.errors import ModelError, Where
from trimtab.models.flat import decoder_of, layer_list, shallow
from trimtab.protocols import LoRASpec
from trimtab.runtime.files import read_json, write_json
from trimtab.runtime.seeds import uniforms

FOLDER = "adapter"
"""Within a saved model's folder: its adapter, as PEFT writes one."""
INSTALL = "pip install 'trimtab[lora]'"
_WEIGHTS, _CONFIG, _SIDECAR = "adapter_model.safetensors", "adapter_config.json", "trimtab.json"
_NAME = "default"
"""PEFT's name of an adapter that nobody named; every twin has one adapter."""


def _peft() -> Any:
    if importlib.util.find_spec("peft") is None:
        raise ModelError("LoRA needs the package peft, which is not installed", fix=INSTALL)
    return importlib.import_module("peft")


# ---- twins


def twin(module: nn.Module) -> nn.Module:
    """The same tensors under other module objects, all the way down: a child of the twin can be replaced alone."""
    known: dict[int, nn.Module] = {}

    def of(one: nn.Module) -> nn.Module:
        if id(one) not in known:
            known[id(one)] = copied = shallow(one)
            copied._modules = {name: child and of(child) for name, child in one._modules.items()}
        return known[id(one)]

    return of(module)


def with_decoder(lm: PreTrainedModel, decoder: PreTrainedModel) -> PreTrainedModel:
    """A language model that speaks through another decoder; all other tensors, its output embedding too, are shared."""
    other, name = shallow(lm), lm.base_model_prefix
    if lm._modules.get(name) is None:
        raise ModelError(f"{type(lm).__name__} has no module '{name}'", fix="use sharing: separate, without lora")
    other._modules[name] = decoder
    return cast(PreTrainedModel, other)


# ---- adapters


def matrices(decoder: PreTrainedModel) -> list[str]:
    """Names of the matrices inside a decoder's layers (``q_proj``, ``c_attn``, ...), in their order."""
    owner, name = layer_list(decoder, cast(int, decoder.config.num_hidden_layers))
    found = [
        path.rpartition(".")[2]
        for layer in cast(nn.ModuleList, getattr(owner, name))
        for path, module in layer.named_modules()
        if isinstance(module, nn.Linear | Conv1D)
    ]
    return list(dict.fromkeys(found))


def adapted(decoder: PreTrainedModel, spec: LoRASpec, seed: int, name: str) -> PreTrainedModel:
    """A twin with a fresh adapter, which changes nothing yet (B = 0). Only the adapter's float32 tensors are trainable.

    Args:
        decoder: the base, which is left as it is.
        spec: rank, scale, and which matrices.
        seed, name: of the random stream that A is drawn from, uniform within ±1/√(width) as PEFT has it.

    Raises:
        ModelError: peft is not installed, a target is no matrix of the layers, or the family cannot be adapted.
    """
    known = matrices(decoder)
    targets = list(spec.targets or known)
    if unknown := sorted(set(targets) - set(known)):
        raise ModelError(
            f"lora.targets names {', '.join(unknown)}, which {type(decoder).__name__}'s layers do not have",
            fix=f"choose from {', '.join(known)}, or leave targets out for all of them",
        )
    config = _config(spec, targets, decoder)
    made = cast(PreTrainedModel, twin(decoder))
    try:
        with torch.random.fork_rng(devices=[]):  # PEFT draws, and what it draws is replaced below
            _peft().inject_adapter_in_model(config, made, adapter_name=_NAME)
    except ValueError as error:
        raise ModelError(
            f"PEFT cannot adapt {type(decoder).__name__}: {str(error).splitlines()[0]}",
            fix="choose other lora.targets, or use sharing: separate, without lora",
        ) from error
    for path, layer in adapters(made):
        down, up = _pair(layer)
        bound = down.shape[1] ** -0.5
        drawn = torch.from_numpy(uniforms(down.numel(), seed, "lora", name, path)).view(down.shape)
        down.data = ((2 * drawn - 1) * bound).to(down.device, torch.float32)
        up.data = torch.zeros(up.shape, device=up.device)
    return made.eval()


def _config(spec: LoRASpec, targets: list[str], decoder: nn.Module, **more: Any) -> Any:
    turned = any(isinstance(module, Conv1D) for module in decoder.modules())
    return _peft().LoraConfig(
        r=spec.r,
        lora_alpha=spec.alpha,
        lora_dropout=0.0,  # on-policy passes and gradients must see one function
        target_modules=targets,
        fan_in_fan_out=turned,
        bias="none",
        **more,
    )


def adapters(module: nn.Module) -> list[tuple[str, Any]]:
    """PEFT's layers by path; empty for a model without an adapter."""
    return [(path, m) for path, m in module.named_modules() if "lora_A" in m._modules and "base_layer" in m._modules]


def _pair(layer: Any) -> tuple[nn.Parameter, nn.Parameter]:
    return layer.lora_A[_NAME].weight, layer.lora_B[_NAME].weight


def adapter_parameters(module: nn.Module) -> list[nn.Parameter]:
    """The tensors A and B of every adapted matrix."""
    return [tensor for _, layer in adapters(module) for tensor in _pair(layer)]


def copied(decoder: PreTrainedModel) -> PreTrainedModel:
    """Another twin of the same base whose adapter is a copy of this one's."""
    made = cast(PreTrainedModel, twin(decoder))
    for _, layer in adapters(made):
        for name in ("lora_A", "lora_B"):
            layer._modules[name] = copy.deepcopy(layer._modules[name])
    return made


@torch.no_grad()
def merged(decoder: PreTrainedModel) -> PreTrainedModel:
    """A twin without PEFT's layers, whose adapted matrices are new tensors with the adapter added. A copy, never the
    base: that one serves the other parts, and is the reference."""
    made = twin(decoder)
    for path, layer in adapters(made):
        base = shallow(layer.base_layer)
        weight = cast(Tensor, layer.base_layer.weight)
        total = weight.float() + layer.get_delta_weight(_NAME).float()
        base._parameters["weight"] = nn.Parameter(total.to(weight.dtype), requires_grad=False)
        owner, _, name = path.rpartition(".")
        made.get_submodule(owner)._modules[name] = base
    made.__dict__.pop("peft_config", None)
    return cast(PreTrainedModel, made)


# ---- files


def fingerprint(decoder: PreTrainedModel) -> str:
    """sha256 (hex) of a decoder's tensors as they are in memory: an adapter belongs to exactly one base."""
    found = hashlib.sha256()
    for name, tensor in sorted(decoder.named_parameters()):
        found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        found.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def save_adapter(
    folder: Path,
    decoder: PreTrainedModel,
    *,
    base: PreTrainedModel,
    loaded_from: str,
    head: nn.Linear | None = None,
) -> None:
    """An adapter as PEFT writes one: ``PeftModel.from_pretrained(AutoModelForCausalLM...(base), folder)`` loads it.

    Args:
        folder: made anew.
        decoder: a twin with an adapter.
        base: the language model (its decoder under its own prefix) that the twin was made from.
        loaded_from: what the recipe calls the base; PEFT's ``base_model_name_or_path``.
        head: a reward model's; then the adapter belongs to ``AutoModelForSequenceClassification``.
    """
    kept = cast(Any, decoder).peft_config[_NAME]
    spec, kind = LoRASpec(int(kept.r), float(kept.lora_alpha)), "CAUSAL_LM" if head is None else "SEQ_CLS"
    more = {"task_type": kind, "base_model_name_or_path": loaded_from, "inference_mode": True}
    config = _config(spec, sorted(kept.target_modules), decoder, **more)
    if head is not None:
        config.modules_to_save = ["score"]
    folder.mkdir()
    config.save_pretrained(folder)
    # PEFT holds sets, whose order another process would write differently
    plain = {key: sorted(v) if key == "target_modules" else v for key, v in read_json(folder / _CONFIG).items()}
    write_json(folder / _CONFIG, plain)
    tensors = {}
    for path, layer in adapters(decoder):
        for part, tensor in zip(("lora_A", "lora_B"), _pair(layer), strict=True):
            tensors[f"base_model.model.{base.base_model_prefix}.{path}.{part}.weight"] = tensor.detach().contiguous()
    if head is not None:
        tensors["base_model.model.score.weight"] = head.weight.detach().float().contiguous()
    save_file(tensors, folder / _WEIGHTS, {"format": "pt"})
    write_json(folder / _SIDECAR, {"base": fingerprint(decoder_of(base)), "r": spec.r, "alpha": spec.alpha})


def saved_for(folder: Path, decoder: PreTrainedModel) -> bool:
    """Whether a model's folder has an adapter, and one that was trained on exactly this base."""
    file = folder / FOLDER / _SIDECAR
    return file.is_file() and read_json(file).get("base") == fingerprint(decoder)


@torch.no_grad()
def load_adapter(folder: Path, base: PreTrainedModel) -> tuple[PreTrainedModel, nn.Linear | None]:
    """A twin of a language model's decoder with the adapter of a folder, and the head that was saved with it.

    Raises:
        ModelError: the adapter's tensors are not there, or not those of this base.
    """
    sidecar, config = read_json(folder / _SIDECAR), read_json(folder / _CONFIG)
    spec = LoRASpec(int(sidecar["r"]), float(sidecar["alpha"]), tuple(config["target_modules"]))
    decoder = adapted(decoder_of(base), spec, 0, "loaded")
    with _refusing(folder / _WEIGHTS):
        saved = load_file(folder / _WEIGHTS)
        for path, layer in adapters(decoder):
            for part, tensor in zip(("lora_A", "lora_B"), _pair(layer), strict=True):
                tensor.copy_(saved.pop(f"base_model.model.{base.base_model_prefix}.{path}.{part}.weight"))
        weight = saved.pop("base_model.model.score.weight", None)
        if saved:
            raise KeyError(", ".join(sorted(saved)))
    if weight is None:
        return decoder, None
    head = nn.Linear(weight.shape[1], weight.shape[0], bias=False, device=next(base.parameters()).device)
    head.weight.copy_(weight)
    return decoder, head


@contextmanager
def _refusing(file: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, SafetensorError, KeyError, RuntimeError) as error:
        raise ModelError(
            f"this is not the adapter that was saved ({error})", where=Where(str(file)), fix="train the stage again"
        ) from error
