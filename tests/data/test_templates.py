"""Named templates write what their models were trained on, letter by letter."""

from __future__ import annotations

from pathlib import Path

import pytest

from data.tiny import pieces, tokenizer
from trimtab.data.template import Renderer
from trimtab.data.templates import TEMPLATES, TOKENS
from trimtab.errors import DataError, ModelError
from trimtab.records import Demonstration, Message, Prompt, Role

MORE = tuple(dict.fromkeys(token for tokens in TOKENS.values() for token in tokens))
TOK = tokenizer(eos="</s>", more=MORE, merges=[])
GPT2 = tokenizer(bos="<|endoftext|>", eos="<|endoftext|>", more=MORE, merges=[])
TALK = (
    Message("user", "Who is there?"),
    Message("assistant", "A friend."),
    Message("user", "Come in!"),
    Message("assistant", "Thanks."),
)
POLITE = (
    "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, detailed, "
    "and polite answers to the user's questions."
)
WRITTEN = {
    "chatml": "<|im_start|>user\nWho is there?<|im_end|>\n<|im_start|>assistant\nA friend.<|im_end|>\n"
    "<|im_start|>user\nCome in!<|im_end|>\n<|im_start|>assistant\nThanks.<|im_end|>\n",
    "plain": "User: Who is there?\nAssistant: A friend.</s>\nUser: Come in!\nAssistant: Thanks.</s>\n",
    "llama-3": "<s><|start_header_id|>user<|end_header_id|>\n\nWho is there?<|eot_id|>"
    "<|start_header_id|>assistant<|end_header_id|>\n\nA friend.<|eot_id|>"
    "<|start_header_id|>user<|end_header_id|>\n\nCome in!<|eot_id|>"
    "<|start_header_id|>assistant<|end_header_id|>\n\nThanks.<|eot_id|>",
    "vicuna_v1.1": f"<s>{POLITE} USER: Who is there? ASSISTANT: A friend.</s>USER: Come in! ASSISTANT: Thanks.</s>",
    "human_assistant": "<s>\n\nHuman: Who is there?\n\nAssistant: A friend.</s>\n\nHuman: Come in!"
    "\n\nAssistant: Thanks.</s>",
    "moss": "<s><|Human|>Who is there?</s><|MOSS|>A friend.</s><|Human|>Come in!</s><|MOSS|>Thanks.</s>",
    "moss-en": "<s>Human:Who is there?</s>Assistant:A friend.</s>Human:Come in!</s>Assistant:Thanks.</s>",
}
ROLES: dict[str, tuple[Role, ...]] = {
    "chatml": ("system", "tool"),
    "plain": ("system", "tool"),
    "llama-3": ("system", "tool"),
    "vicuna_v1.1": ("system",),
    "human_assistant": ("system",),
    "moss": (),
    "moss-en": (),
}
"""Roles besides user and assistant that a template knows; a system turn opens the conversation."""


def test_every_template_is_here() -> None:
    assert WRITTEN.keys() == ROLES.keys() == TEMPLATES.keys()


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_template_writes_its_published_text_and_its_answers_are_learned(name: str) -> None:
    r = Renderer(TOK, name)
    ids, act = r.demonstration(Demonstration("talk", TALK))
    assert TOK.decode(ids) == WRITTEN[name]
    end = TOK.convert_ids_to_tokens(r.end_ids[0])
    assert [piece.strip() for piece in pieces(TOK, ids, act)] == [f"A friend.{end}", f"Thanks.{end}"]


@pytest.mark.parametrize("name", TEMPLATES)
def test_what_is_asked_is_the_beginning_of_what_is_learned(name: str) -> None:
    r = Renderer(TOK, name)
    ids, act = r.demonstration(Demonstration("talk", TALK))
    second = max(i for i in range(1, len(act)) if act[i] and not act[i - 1])
    assert r.prompt(Prompt("ask", TALK[:3])).ids == tuple(ids[:second])
    assert r.answer(Prompt("ask", TALK[:3]), "Thanks.")[0] == ids[: second + sum(act[second:])]


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_role_is_written_or_refused_by_name(name: str) -> None:
    r = Renderer(TOK, name)
    for role, turns in {
        "system": (Message("system", "Be brief."), *TALK),
        "tool": (TALK[0], Message("tool", "42"), TALK[1]),
    }.items():
        row = Demonstration("roles", turns)
        if role in ROLES[name]:
            text = TOK.decode(r.demonstration(row)[0])
            assert all(message.content in text for message in turns)
        else:
            with pytest.raises(DataError, match=f"roles: .*no {role} turns here"):
                r.demonstration(row)


@pytest.mark.parametrize("name", ["llama-3", "vicuna_v1.1", "human_assistant", "moss", "moss-en"])
def test_a_beginning_that_is_also_the_end_is_not_written(name: str) -> None:
    ids, _ = Renderer(GPT2, name).demonstration(Demonstration("talk", TALK))
    assert ids[0] != GPT2.bos_token_id, "GPT-2 has one token for both, and was not trained to begin with it"


@pytest.mark.parametrize("name", TOKENS)
def test_a_token_that_would_be_spelled_out_is_refused(name: str) -> None:
    with pytest.raises(ModelError, match="has no token") as refused:
        Renderer(tokenizer(), name)
    assert TOKENS[name][0] in str(refused.value) and "plain" in refused.value.fix


def test_the_page_shows_every_template_and_the_tokens_that_it_needs() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "data.md").read_text(encoding="utf-8")
    table = page.partition("## Templates")[2].partition("**Which tokens")[0].replace("\\|", "|")
    rows = {line.split("`")[1]: line for line in table.splitlines() if line.startswith("| `")}
    rows.pop("template")
    assert rows.keys() == TEMPLATES.keys()
    for name, tokens in TOKENS.items():
        assert all(token in rows[name] for token in tokens)
