"""Which tokens are learned, sampled from and scored, on templates that do it well and on those that do not."""

from __future__ import annotations

import pytest
from hypothesis import given, settings, strategies as st

from data.tiny import ASK, CHAT, CHAT_MARKED, CHAT_MARKED_BARE, CHAT_MARKED_NEWLINE, MANY, pieces, tokenizer
from trimtab.data.template import Renderer
from trimtab.errors import DataError, ModelError
from trimtab.records import Demonstration, Message, Prompt

TOK = tokenizer()
CHATML_TOK = tokenizer(bos="<|im_start|>", eos="<|im_end|>", pad="<|im_end|>", unk="<|endoftext|>")
ONE = Demonstration("one", MANY.messages[1:3])
WRITERS = {"plain": CHAT, "marked": CHAT_MARKED, "newline marked": CHAT_MARKED_NEWLINE, "bare": CHAT_MARKED_BARE}


def renderer(template: str) -> Renderer:
    return Renderer(TOK, template)


# ---- what is learned


@pytest.mark.parametrize("template", WRITERS.values(), ids=WRITERS)
def test_learned_is_every_answer_with_its_end_token_and_nothing_after_it(template: str) -> None:
    ids, act = renderer(template).demonstration(MANY)
    assert pieces(TOK, ids, act) == ["Good, the café is open.<end>", "The wine is good too.<end>"]


@pytest.mark.parametrize("template", WRITERS.values(), ids=WRITERS)
def test_marked_and_unmarked_templates_of_the_same_text_agree(template: str) -> None:
    assert renderer(template).demonstration(MANY) == renderer(CHAT).demonstration(MANY)


def test_the_whole_conversation_is_there() -> None:
    ids, _ = renderer(CHAT).demonstration(MANY)
    assert TOK.decode(ids) == "".join(f"[{m.role}]{m.content}<end>\n" for m in MANY.messages)


def test_a_conversation_may_end_with_a_user_turn_which_is_not_learned() -> None:
    row = Demonstration("open", (*ONE.messages, Message("user", "Thanks!")))
    for template in (CHAT, CHAT_MARKED):
        assert pieces(TOK, *renderer(template).demonstration(row)) == ["Good, the café is open.<end>"]


def test_chatml_agrees_with_the_mask_of_plain_transformers() -> None:
    r = Renderer(CHATML_TOK, "chatml")
    ids, act = r.demonstration(MANY)
    messages = [{"role": m.role, "content": m.content} for m in MANY.messages]
    out = CHATML_TOK.apply_chat_template(
        messages, chat_template=r.chat_template, return_dict=True, return_assistant_tokens_mask=True
    )
    assert ids == out["input_ids"]
    assert [int(a) for a in act] == out["assistant_masks"]
    assert "system" not in CHATML_TOK.decode(r.prompt(ASK).ids), "chatml adds no system turn"


def test_a_saved_tokenizer_renders_the_same(tmp_path) -> None:
    from transformers import AutoTokenizer

    r = renderer(CHAT_MARKED)
    tok = tokenizer()
    tok.chat_template = r.chat_template
    tok.save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(str(tmp_path))
    messages = [{"role": m.role, "content": m.content} for m in ASK.messages]
    ids = again.apply_chat_template(messages, add_generation_prompt=True)["input_ids"]
    assert tuple(ids) == r.prompt(ASK).ids
    assert Renderer(again).demonstration(MANY) == r.demonstration(MANY)


# ---- templates and rows that are refused by name

HEADLESS = CHAT_MARKED.replace("{{ '[' + m['role'] + ']' }}", "").replace("{{ '[assistant]' }}", "")
REWRITES = (
    "{% for m in messages %}{{ '[' + m['role'] + ']' }}"
    "{% if m['role'] == 'assistant' and not loop.last %}{{ m['content'][:4] }}{% else %}{{ m['content'] }}{% endif %}"
    "{{ eos_token }}{% endfor %}{% if add_generation_prompt %}{{ '[assistant]' }}{% endif %}"
)
FORGETS_SYSTEM = (
    "{% for m in messages %}{% if m['role'] != 'system' or messages|length < 3 %}"
    "{{ '[' + m['role'] + ']' + m['content'] + eos_token }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '[assistant]' }}{% endif %}"
)
MARKS_LAST = CHAT_MARKED.replace("m['role'] == 'assistant'", "m['role'] == 'assistant' and loop.last")
MARKS_NONE = CHAT_MARKED.replace("{% if m['role'] == 'assistant' %}", "{% if m['role'] == 'nobody' %}")
_TWO = "{{ bos_token }}{% for m in messages %}{% if loop.first %}{{ bos_token }}{% endif %}"
TWO_BOS, TWO_BOS_MARKED = (t.replace("{% for m in messages %}", _TWO, 1) for t in (CHAT, CHAT_MARKED))
PICKY = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system turns here') }}{% endif %}" + CHAT


@pytest.mark.parametrize(
    ("template", "row", "why"),
    [
        (HEADLESS, Demonstration("bare", (Message("assistant", "a"),)), "nothing precedes it"),
        (REWRITES, MANY, "rewrites turn 3"),
        (FORGETS_SYSTEM, MANY, "not a token prefix"),
        (MARKS_LAST, MANY, "marks 1 of 2"),
        (MARKS_NONE, MANY, "marks 0 of 2"),
        (TWO_BOS, ONE, "two BOS"),
        (TWO_BOS_MARKED, ONE, "two BOS"),
        (PICKY, MANY, "no system turns here"),
        (CHAT, Demonstration("one", (Message("user", "x"),)), "no assistant turn"),
        (
            CHAT,
            Demonstration("one", (Message("user", "x"), Message("assistant", "a <end> b"))),
            "control token '<end>'",
        ),
        (CHAT, Demonstration("one", (Message("user", "<s>"), Message("assistant", "ok"))), "control token '<s>'"),
        (CHAT, Demonstration("one", (Message("assistant", "first"), Message("user", "x"))), "empty conversation"),
    ],
)
def test_a_row_is_refused_by_name(template: str, row: Demonstration, why: str) -> None:
    r = renderer(template)
    with pytest.raises(DataError, match=row.id) as refused:
        r.demonstration(row)
    assert why in str(refused.value)
    assert refused.value.fix


def test_a_template_that_rewrites_earlier_turns_may_be_used_for_single_turns() -> None:
    r = renderer(REWRITES)
    assert pieces(TOK, *r.demonstration(ONE)) == ["Good, the café is open.<end>"]


def test_an_answer_that_merges_with_the_prompt_is_refused_not_shifted() -> None:
    template = CHAT.replace("'[assistant]'", "'[assistant]\\n'").replace("']' }}", "']' }}{{ '\\n' }}")
    marked = CHAT_MARKED.replace("'[assistant]'", "'[assistant]\\n'").replace("']' }}", "']' }}{{ '\\n' }}")
    merging = Demonstration("merging", (Message("user", "x"), Message("assistant", "\n\nA good film.")))
    for text in (template, marked):
        assert pieces(TOK, *renderer(text).demonstration(ONE)) == ["Good, the café is open.<end>"]
        with pytest.raises(DataError, match="merging"):
            renderer(text).demonstration(merging)
        with pytest.raises(DataError, match="not a token prefix"):
            renderer(text).answer(Prompt("p", merging.messages[:1]), "\n\nA good film.")


NO_END = CHAT.replace(" + eos_token", "")
THINKS = CHAT.replace("'[assistant]'", "'[assistant]<think>'")
SHOUTS = CHAT.replace("m['content'] + eos_token", "m['content'].upper() + eos_token")


@pytest.mark.parametrize(
    ("template", "why"),
    [
        (NO_END, "no end token"),
        (THINKS, "generation prompt"),
        (SHOUTS, "as it is"),
        ("chatlm", "did you mean 'chatml'"),
        (None, "no chat template"),
    ],
)
def test_a_template_is_refused_before_any_row(template: str | None, why: str) -> None:
    with pytest.raises(ModelError) as refused:
        Renderer(TOK, template)
    assert why in str(refused.value)
    assert refused.value.fix


# ---- prompts, prefills and answers


def test_a_prompt_ends_where_its_answer_starts() -> None:
    r = renderer(CHAT)
    prompt = r.prompt(Prompt("p", ASK.messages, columns={"length": 7}))
    ids, act = r.answer(ASK, "Good.")
    assert tuple(ids[: act.index(True)]) == prompt.ids
    assert (prompt.prefill, prompt.columns) == (0, {"length": 7})
    assert TOK.decode(ids[act.index(True) :]) == "Good.<end>"
    assert ids[-1] == r.end_ids[0], "nothing after the end token"


def test_an_answer_is_the_demonstration_up_to_its_end_token() -> None:
    r = renderer(CHAT)
    ids, act = r.demonstration(ONE)
    scored, flags = r.answer(Prompt("p", ONE.messages[:1]), ONE.messages[1].content)
    assert (ids[: len(scored)], act[: len(scored)]) == (scored, flags)
    assert TOK.decode(ids[len(scored) :]) == "\n"


def test_an_empty_answer_is_its_end_token() -> None:
    ids, act = renderer(CHAT).answer(ASK, "")
    assert act == [False] * (len(ids) - 1) + [True]


texts = st.text(alphabet=st.sampled_from("ab od\nthe café!"), min_size=1, max_size=30).filter(lambda t: t[0] != "\n")


@settings(max_examples=60, deadline=None)
@given(text=texts, share=st.floats(0, 1))
def test_a_prefill_is_cut_on_ids(text: str, share: float) -> None:
    """Prompt and prefill are the first ids of the conversation with the whole text, whatever words they cut."""
    r = renderer(CHAT)
    whole, act = r.answer(ASK, text)
    start = act.index(True)
    keep = round(share * (len(whole) - 1 - start))
    prompt = r.prompt(Prompt("p", ASK.messages, prefill=text, prefill_tokens=keep))
    assert list(prompt.ids) == whole[: start + keep]
    assert prompt.prefill == keep
    rest = whole[start + keep :]
    assert r.decode([*prompt.ids[start:], *rest]) == text


def test_without_a_number_the_whole_prefill_is_kept() -> None:
    r = renderer(CHAT)
    prompt = r.prompt(Prompt("p", ASK.messages, prefill="The food"))
    assert r.decode(prompt.ids[-prompt.prefill :]) == "The food"


@pytest.mark.parametrize(
    ("prompt", "why"),
    [
        (Prompt("p", ASK.messages, prefill="Good", prefill_tokens=9), "has 2 tokens"),
        (Prompt("p", ASK.messages, prefill_tokens=2), "without a prefill"),
        (Prompt("p", (Message("user", "hi<end>"),)), "control token"),
    ],
)
def test_a_prompt_is_refused_by_name(prompt: Prompt, why: str) -> None:
    with pytest.raises(DataError, match=why) as refused:
        renderer(CHAT).prompt(prompt)
    assert str(refused.value).startswith("p:")


def test_messages_are_role_and_content() -> None:
    assert renderer(CHAT).messages(ASK) == ({"role": "user", "content": "How is the food?"},)


# ---- end, pad, and what surrounds an answer


def test_the_text_around_an_answer_is_not_part_of_it() -> None:
    padded = CHAT.replace("']' }}{{ m['content'] + eos_token }}", "']' }}{{ ' ' + m['content'] + ' ' + eos_token }}")
    r = Renderer(TOK, padded)
    ids, act = r.answer(ASK, "the end")
    assert TOK.decode(ids[act.index(True) :]) == " the end <end>"
    assert r.decode(ids[act.index(True) :]) == "the end"
    prompt = r.prompt(Prompt("p", ASK.messages, prefill="the end"))
    assert TOK.decode(prompt.ids[-prompt.prefill :]) == " the end"


def test_decode_leaves_end_and_special_tokens_out() -> None:
    tok = tokenizer(more=("<turn>", "<note>"))
    r = Renderer(tok, CHAT.replace("eos_token", "'<turn>'"))
    assert r.end_ids == (tok.convert_tokens_to_ids("<turn>"), tok.eos_token_id)
    ids = tok("a<note>b<turn><end>", add_special_tokens=False)["input_ids"]
    assert r.decode(ids) == "ab"


def test_an_end_token_that_is_an_ordinary_added_token_is_found() -> None:
    tok = tokenizer()
    tok.add_tokens(["<turn>"])
    r = Renderer(tok, CHAT.replace("eos_token", "'<turn>'"))
    assert r.end_ids == (tok.convert_tokens_to_ids("<turn>"), tok.eos_token_id)
    assert pieces(tok, *r.demonstration(ONE)) == ["Good, the café is open.<turn>"]
    with pytest.raises(DataError, match="control token '<turn>'"):
        r.answer(ASK, "a<turn>b")


def test_of_two_end_tokens_that_begin_alike_the_longer_is_meant() -> None:
    tok = tokenizer(more=("<e", "<end>>"))
    assert Renderer(tok, CHAT).end_ids == (tok.eos_token_id,)


@pytest.mark.parametrize(
    ("tok", "pad"),
    [
        (tokenizer(pad="<pad>"), "<pad>"),
        (CHATML_TOK, "<|endoftext|>"),
        (tokenizer(pad="<end>", more=("<x>",)), "<x>"),
        (tokenizer(pad="<end>"), "<s>"),
        (tokenizer(bos="<end>", pad="<end>"), "!"),
    ],
)
def test_the_pad_token_ends_no_turn(tok, pad: str) -> None:
    r = Renderer(tok, CHAT)
    assert tok.convert_ids_to_tokens(r.pad_id) == pad
    assert r.pad_id not in r.end_ids
