"""Folders that plain transformers loads, and that say there what the models said here."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from jinja2 import TemplateError
from torch import Tensor, nn
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BartConfig,
    BartModel,
    GenerationConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from trimtab.batch import Sequence, flatten
from trimtab.errors import ModelError
from trimtab.models.attention import IMPLEMENTATION
from trimtab.models.bundle import Bundle
from trimtab.models.export import PAD_TOKEN, SIDECAR, merged_decoder, save_lm, save_reward, stop_at_end
from trimtab.models.flat import Body
from trimtab.models.load import load_lm, load_reward, probe
from trimtab.protocols import ModelSpec

from .conftest import CHATML, VOCABULARY, alone, make_tokenizer

END = "<|im_end|>"
TALKS = [
    [{"role": "user", "content": "how was it?"}, {"role": "assistant", "content": answer}]
    for answer in ("fine.", "a moving and deeply felt film", "no")
]
MARKED = (
    "{%- for message in messages %}\n"
    "    {%- if message.role == 'assistant' -%}\n"
    "        {{ '<|im_start|>assistant\n' }}{% generation %}{{ message.content + '<|im_end|>' }}{%- endgeneration -%}\n"
    "    {% else %}\n"
    "        {{- '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>\n' -}}\n"
    "    {% endif %}\n"
    "{%- endfor %}\n"
    "{%- if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}\n"
)


def render(tokenizer: PreTrainedTokenizerFast, template: str, talk: list[dict[str, str]], **kwargs: Any) -> str:
    return cast(str, tokenizer.apply_chat_template(talk, chat_template=template, tokenize=False, **kwargs))


def ids_of(tokenizer: PreTrainedTokenizerFast, talk: list[dict[str, str]]) -> list[int]:
    """The conversation up to its last end token, found on ids and not with the code under test."""
    ids = tokenizer(render(tokenizer, cast(str, tokenizer.chat_template), talk), add_special_tokens=False)["input_ids"]
    return ids[: len(ids) - ids[::-1].index(cast(int, tokenizer.eos_token_id))]


def reward_bundle(lm: PreTrainedModel, branch: int | None) -> Bundle:
    bundle = Bundle(lm, probe(lm), branch)
    bundle.add_scalar("reward", "last", trained=True)
    torch.manual_seed(9)
    nn.init.normal_(cast(Any, bundle.parts["reward"]).head.weight, std=0.3)
    with torch.no_grad():
        for parameter in bundle.trained("reward").values():
            parameter.add_(0.02 * torch.randn_like(parameter))
    return bundle


def scores_of(bundle: Bundle, texts: list[list[int]]) -> Tensor:
    with torch.no_grad():
        return bundle(["reward"], flatten([Sequence(t, [False] * len(t)) for t in texts]))["reward"]["score_N"]


def export(
    bundle: Bundle, tokenizer: PreTrainedTokenizerFast, folder: Path, template: str | None = None, **kwargs: Any
) -> str:
    head = cast(Any, bundle.parts["reward"]).head
    kwargs = {"end_ids": [tokenizer.eos_token_id], **kwargs}
    return save_reward(
        merged_decoder(bundle, "reward"), head, tokenizer, folder, template, {"kind": "reward"}, **kwargs
    )


# ---- templates


@pytest.mark.parametrize("template", [CHATML, MARKED, MARKED.replace("\n", "\r\n")], ids=["plain", "marked", "crlf"])
def test_a_template_stops_at_the_end_token(tokenizer: PreTrainedTokenizerFast, template: str) -> None:
    for talk in [*TALKS, TALKS[0] * 2, TALKS[0][:1]]:
        whole = render(tokenizer, template, talk)
        cut = render(tokenizer, stop_at_end(template, END), talk)
        assert cut.endswith(END)
        assert whole.startswith(cut)
        assert END not in whole.removeprefix(cut)


@pytest.mark.parametrize("template", [CHATML, MARKED], ids=["plain", "marked"])
def test_a_generation_prompt_is_left_whole(tokenizer: PreTrainedTokenizerFast, template: str) -> None:
    ask = {"add_generation_prompt": True}
    stopped = stop_at_end(template, END)
    assert render(tokenizer, stopped, TALKS[0][:1], **ask) == render(tokenizer, template, TALKS[0][:1], **ask)


@pytest.mark.parametrize(
    "template",
    [
        "\n x ",
        "\n\n",
        "x\n",
        "x\n\n",
        "  {{ 1 }}  \n",
        "\t{% if true %}\n y\n{% endif %}\n",
        "{{ eos_token }}",
        "{# no #}\nz",
    ],
)
def test_white_space_of_a_template_survives(tokenizer: PreTrainedTokenizerFast, template: str) -> None:
    """Jinja trims around block tags; wrapping a template puts tags where there were none."""
    stopped = stop_at_end(template, "<never>")
    assert render(tokenizer, stopped, TALKS[0]) == render(tokenizer, template, TALKS[0])


@pytest.mark.parametrize(
    "end", ['<"end">', "<\\end>", "<｜end▁of▁sentence｜>", "<🦙>", "{{ 'end' }}", "'", "{% endset %}"]
)
def test_any_text_can_be_an_end_token(tokenizer: PreTrainedTokenizerFast, end: str) -> None:
    stopped = stop_at_end("{{ messages[0].content }}\n", end)
    talk = [{"role": "user", "content": f"a{end}b{end} tail"}]
    assert render(tokenizer, stopped, talk) == f"a{end}b{end}"


def test_stopping_twice_is_stopping_once(tokenizer: PreTrainedTokenizerFast) -> None:
    once = stop_at_end(MARKED, END)
    assert render(tokenizer, stop_at_end(once, END), TALKS[0]) == render(tokenizer, once, TALKS[0])


def test_a_template_that_refuses_still_refuses(tokenizer: PreTrainedTokenizerFast) -> None:
    stopped = stop_at_end("{{ raise_exception('no system turns') }}", END)
    with pytest.raises(TemplateError, match="no system turns"):
        render(tokenizer, stopped, TALKS[0])


# ---- reward models


@pytest.mark.parametrize("branch", [2, None], ids=["hydra", "separate"])
def test_plain_transformers_gives_our_scores(
    family: str,
    branch: int | None,
    make: Callable[..., PreTrainedModel],
    tokenizer: PreTrainedTokenizerFast,
    tmp_path: Path,
) -> None:
    bundle = reward_bundle(make(family), branch)
    score_N = scores_of(bundle, [ids_of(tokenizer, talk) for talk in TALKS])
    assert float(score_N.std()) > 0.01, "scores that hardly differ would hide a fault"
    export(bundle, tokenizer, tmp_path / "model")

    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "model", dtype=torch.float32).eval()
    plain = AutoTokenizer.from_pretrained(tmp_path / "model")
    with torch.no_grad():
        singly = [
            model(**plain.apply_chat_template(talk, return_tensors="pt", return_dict=True)).logits[0, 0]
            for talk in TALKS
        ]
        padded = {}
        for side in ("right", "left"):
            plain.padding_side = side
            rows = plain.apply_chat_template(TALKS, return_tensors="pt", return_dict=True, padding=True)
            assert int(rows["attention_mask"].sum()) < rows["attention_mask"].numel()
            if side == "left" and family == "gpt2":  # learned positions: transformers leaves them to the caller
                rows["position_ids"] = (rows["attention_mask"].cumsum(-1) - 1).clamp(min=0)
            padded[side] = model(**rows).logits[:, 0]
    torch.testing.assert_close(torch.stack(singly), score_N, atol=1e-5, rtol=0)
    torch.testing.assert_close(padded["right"], score_N, atol=1e-5, rtol=0)
    torch.testing.assert_close(padded["left"], score_N, atol=1e-5, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_reward_model_comes_back_as_it_was(
    dtype: torch.dtype, make: Callable[..., PreTrainedModel], tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    bundle = reward_bundle(make("llama", dtype), 2)
    texts = [ids_of(tokenizer, talk) for talk in TALKS]
    export(bundle, tokenizer, tmp_path / "model")
    name = str(dtype).removeprefix("torch.")
    loaded = load_reward(ModelSpec(str(tmp_path / "model"), dtype=cast(Any, name)), "flat")
    assert loaded.head.weight.dtype == torch.float32
    assert torch.equal(loaded.head.weight, cast(Any, bundle.parts["reward"]).head.weight)
    with torch.no_grad():
        batch = flatten([Sequence(t, [False] * len(t)) for t in texts])
        score_N = loaded.head(loaded.body(batch)[batch.last_T()].float()).squeeze(-1)
    torch.testing.assert_close(score_N, scores_of(bundle, texts), atol=1e-6, rtol=1e-6)


def test_the_padding_token_ends_nothing(
    make: Callable[..., PreTrainedModel], tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    assert tokenizer.pad_token_id == tokenizer.eos_token_id == 2, "the trap of SmolLM2"
    export(reward_bundle(make("llama"), 2), tokenizer, tmp_path / "model")
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    plain = AutoTokenizer.from_pretrained(tmp_path / "model")
    assert (config["pad_token_id"], plain.pad_token_id, plain.eos_token_id) == (0, 0, 2)
    assert (config["vocab_size"], len(plain)) == (VOCABULARY, len(tokenizer))
    assert plain.padding_side == "right"
    assert tokenizer.pad_token_id == 2 and tokenizer.chat_template == CHATML, "the caller's tokenizer was changed"


def test_a_given_padding_token(
    make: Callable[..., PreTrainedModel], tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    bundle = reward_bundle(make("llama"), 2)
    for given, written in ((1, 1), (50, 0)):  # 50 is a letter: a tokenizer would cut it out of every text
        export(bundle, tokenizer, tmp_path / str(given), pad_id=given)
        assert AutoTokenizer.from_pretrained(tmp_path / str(given)).pad_token_id == written
    with pytest.raises(ModelError, match="ends a turn"):
        export(bundle, tokenizer, tmp_path / "refused", pad_id=2)
    assert not (tmp_path / "refused").exists()


@pytest.mark.parametrize("name", ["gpt2", "bloom", "llama"])
def test_a_padding_token_is_added_where_every_special_token_ends_a_text(
    name: str, make: Callable[..., PreTrainedModel], tmp_path: Path
) -> None:
    single = make_tokenizer(("<|endoftext|>",))
    bundle = reward_bundle(make(name), 2)
    texts = [ids_of(single, talk) for talk in TALKS]
    score_N = scores_of(bundle, texts)
    export(bundle, single, tmp_path / "model")
    plain = AutoTokenizer.from_pretrained(tmp_path / "model")
    assert (plain.pad_token, plain.pad_token_id) == (PAD_TOKEN, len(single))
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "model").eval()
    assert model.get_input_embeddings().weight.shape[0] == VOCABULARY + 1
    with torch.no_grad():
        rows = plain.apply_chat_template(TALKS, return_tensors="pt", return_dict=True, padding=True)
        torch.testing.assert_close(model(**rows).logits[:, 0], score_N, atol=1e-5, rtol=0)
    loaded = load_reward(ModelSpec(str(tmp_path / "model"), dtype="float32"), bundle.mode)
    assert loaded.body.decoder.config.vocab_size == VOCABULARY
    for mine, theirs in zip(loaded.body.parameters(), merged_decoder(bundle, "reward").parameters(), strict=True):
        assert torch.equal(mine, theirs), "a reward model must keep the policy's trunk, tensor by tensor"


def test_heads_and_families_that_cannot_be_saved(
    make: Callable[..., PreTrainedModel], tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    body = merged_decoder(reward_bundle(make("llama"), 2), "reward")
    with pytest.raises(ModelError, match="without bias"):
        save_reward(body, nn.Linear(32, 1), tokenizer, tmp_path / "m", None, {}, end_ids=[2])
    head = nn.Linear(32, 1, bias=False)
    with pytest.raises(ModelError, match="token that ends an answer"):
        save_reward(body, head, tokenizer, tmp_path / "m", None, {}, end_ids=[])
    tokenizer.chat_template = None
    with pytest.raises(ModelError, match="chat template"):
        save_reward(body, head, tokenizer, tmp_path / "m", None, {}, end_ids=[2])
    small = BartConfig(d_model=32, encoder_layers=1, decoder_layers=1, vocab_size=VOCABULARY, encoder_ffn_dim=8)
    foreign = Body(cast(PreTrainedModel, BartModel(small)), "padded")
    with pytest.raises(ModelError, match="Bart"):
        save_reward(foreign, head, tokenizer, tmp_path / "m", CHATML, {}, end_ids=[2])
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("template", [None, MARKED], ids=["its own", "marked"])
def test_a_real_chat_model_scores_the_same_in_plain_transformers(template: str | None, tmp_path: Path) -> None:
    """SmolLM2: pad = eos = 2, a newline after every end token, a system turn that nobody wrote."""
    loaded = load_lm(ModelSpec("smollm2-135m-q4", dtype="float32"))
    tokenizer = cast(PreTrainedTokenizerFast, loaded.tokenizer)
    bundle = reward_bundle(loaded.lm, 6)
    if template is not None:
        tokenizer.chat_template = template
    score_N = scores_of(bundle, [ids_of(tokenizer, talk) for talk in TALKS])
    export(bundle, tokenizer, tmp_path / "model", template)
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "model", dtype=torch.float32).eval()
    plain = AutoTokenizer.from_pretrained(tmp_path / "model")
    assert model.config.pad_token_id == plain.pad_token_id == 0
    alike = {"atol": 1e-5, "rtol": 1e-5}
    for talk, score in zip(TALKS, score_N, strict=True):
        with torch.no_grad():
            one = model(**plain.apply_chat_template(talk, return_tensors="pt", return_dict=True)).logits[0, 0]
        torch.testing.assert_close(one, score, **alike)
    for side in ("right", "left"):
        plain.padding_side = side
        rows = plain.apply_chat_template(TALKS, return_tensors="pt", return_dict=True, padding=True)
        with torch.no_grad():
            torch.testing.assert_close(model(**rows).logits[:, 0], score_N, **alike)


# ---- chat models


def test_a_policy_loads_and_chats_in_plain_transformers(
    family: str, make: Callable[..., PreTrainedModel], tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    lm = make(family)
    bundle = Bundle(lm, probe(lm), 2)
    bundle.add_policy()
    with torch.no_grad():
        for parameter in bundle.trained("policy").values():
            parameter.add_(0.02)
    texts = [Sequence(ids, [i > 0 for i in range(len(ids))]) for ids in (ids_of(tokenizer, talk) for talk in TALKS)]
    with torch.no_grad():
        logp_T = bundle(["policy"], flatten(texts))["policy"]["logp_T"]
    tokenizer.chat_template = None
    weights = save_lm(lm, tokenizer, tmp_path / "model", CHATML, {"kind": "policy", "branch": 2})

    assert IMPLEMENTATION not in "".join(f.read_text() for f in (tmp_path / "model").glob("*.json"))
    assert lm.config._attn_implementation == (IMPLEMENTATION if bundle.mode == "flat" else "eager")
    assert tokenizer.chat_template is None
    sidecar = json.loads((tmp_path / "model" / SIDECAR).read_text())
    assert sidecar == {"kind": "policy", "branch": 2, "weights": weights}
    file = (tmp_path / "model" / "model.safetensors").read_bytes()
    assert weights == hashlib.sha256(file).hexdigest()

    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "model", dtype=torch.float32).eval()
    assert plain.config._attn_implementation in ("sdpa", "eager")
    torch.testing.assert_close(alone(plain, texts)[1], logp_T, atol=1e-5, rtol=1e-5)
    talker = AutoTokenizer.from_pretrained(tmp_path / "model")
    ask = talker.apply_chat_template(TALKS[0][:1], add_generation_prompt=True, return_tensors="pt", return_dict=True)
    out = plain.generate(**ask, max_new_tokens=4, do_sample=False)
    assert out.shape[1] > ask["input_ids"].shape[1]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_weights_keep_their_dtype(
    dtype: torch.dtype, make: Callable[..., PreTrainedModel], tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    lm = make("llama", dtype)
    save_lm(lm, tokenizer, tmp_path / "model", None, {})
    loaded = load_lm(ModelSpec(str(tmp_path / "model"), dtype=cast(Any, str(dtype).removeprefix("torch."))))
    assert loaded.mode == "flat" and loaded.lm.dtype == dtype
    assert loaded.tokenizer.chat_template == CHATML
    kept = dict(loaded.lm.named_parameters())
    assert all(torch.equal(kept[name], value) for name, value in lm.named_parameters())


def test_generation_stops_at_every_end_token(
    make: Callable[..., PreTrainedModel], tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    lm = make("llama")
    before = GenerationConfig(
        eos_token_id=7, temperature=0.6, pad_token_id=0
    )  # saved by others, refused by transformers
    lm.generation_config = before
    save_lm(lm, tokenizer, tmp_path / "model", None, {}, end_ids=[9, 2])
    written = GenerationConfig.from_pretrained(tmp_path / "model")
    assert written.eos_token_id == [9, 2, 7]
    assert (written.temperature, written.do_sample, written.pad_token_id) == (0.6, True, 0)
    assert lm.generation_config is before and before.eos_token_id == 7 and not before.do_sample
    lm.generation_config = GenerationConfig()
    save_lm(lm, tokenizer, tmp_path / "model", None, {})
    assert GenerationConfig.from_pretrained(tmp_path / "model").eos_token_id == 2


def test_saving_the_same_model_gives_the_same_hash(
    make: Callable[..., PreTrainedModel], tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    lm = make("llama")
    one, two = (save_lm(lm, tokenizer, tmp_path / name, None, {}) for name in "ab")
    with torch.no_grad():
        next(lm.parameters()).view(-1)[0] += 1
    assert one == two != save_lm(lm, tokenizer, tmp_path / "a", None, {})


def test_a_failed_save_leaves_the_old_folder(
    make: Callable[..., PreTrainedModel],
    tokenizer: PreTrainedTokenizerFast,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lm = make("llama")
    weights = save_lm(lm, tokenizer, tmp_path / "model", None, {})

    def full_disk(*_: Any, **__: Any) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr("transformers.PreTrainedTokenizerBase.save_pretrained", full_disk)
    with pytest.raises(OSError, match="No space"):
        save_lm(lm, tokenizer, tmp_path / "model", None, {})
    assert [f.name for f in tmp_path.iterdir()] == ["model"]
    assert json.loads((tmp_path / "model" / SIDECAR).read_text())["weights"] == weights


def test_a_quantised_model_is_refused(
    make: Callable[..., PreTrainedModel], tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    lm = make("llama")
    lm.config.quantization_config = {"quant_method": "gguf"}
    with pytest.raises(ModelError, match="quantised"):
        save_lm(lm, tokenizer, tmp_path / "model", None, {})
