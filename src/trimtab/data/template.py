"""Conversations as token ids, and which of them are learned. The only place that knows about chat templates.

Two rules everywhere. A trained or scored answer runs from the first token after the generation prompt to the first end
token of its turn, that token included: it is what a model samples, so what a template writes after it (often a newline)
is never learned. And a rendering is only used if the prompt, rendered alone, is a prefix of it *in tokens*; else the
model would be asked, when it samples, in another way than it was taught.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import pairwise
from typing import Any, cast

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from trimtab.data.templates import TEMPLATES, TOKENS, template_text
from trimtab.errors import DataError, ModelError, Where
from trimtab.protocols import TokenPrompt
from trimtab.records import Demonstration, Message, Prompt

_GENERATION = re.compile(r"\{%-?\s*generation\s*-?%\}")
_PROBE = (Message("user", "How was the film?"), Message("assistant", "It was good"))


class Renderer:
    """One tokenizer and one chat template.

    Args:
        tokenizer: of the model; its vocabulary is never changed.
        template: a name (``templates.TEMPLATES``), jinja text, or None for the tokenizer's own template.

    Attributes:
        chat_template: the jinja text; a model saved with it renders the same in plain transformers.
        end_ids: tokens that end an assistant turn: first the one this template writes, then the tokenizer's
            end-of-text token if that is another.
        pad_id: a token that ends no turn. transformers' classification head scores the last token that is not pad,
            so with pad = end it would score the token before the end token.

    Raises:
        ModelError: the template is unknown or absent, writes no end token, or does not begin an answer with its own
            generation prompt.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, template: str | None = None) -> None:
        self.tokenizer = tokenizer
        self.template = template
        self.chat_template = _text_of(tokenizer, template)
        _refuse_spelled_out(tokenizer, template)
        self._marks_answers = bool(_GENERATION.search(self.chat_template)) and tokenizer.is_fast
        self._prompt_ids = lru_cache(maxsize=256)(self._render_prompt)
        self._special = {i: str(t) for i, t in tokenizer.added_tokens_decoder.items() if t.special}
        self._special |= dict(zip(tokenizer.all_special_ids, tokenizer.all_special_tokens, strict=True))
        self.end_ids, self._lead, self._tail = self._probe()
        controls = [*self._special.values(), *(_piece(tokenizer, i) for i in self.end_ids)]
        self._control = re.compile("|".join(re.escape(c) for c in sorted(set(controls), key=len, reverse=True)))
        self.pad_id = self._choose_pad()

    # ---- records to ids

    def demonstration(self, row: Demonstration) -> tuple[list[int], list[bool]]:
        """Ids of the conversation, and True where a token is learned: assistant turns with their end tokens.

        The turns come from ``{% generation %}`` where the template has it, else from rendering turn by turn.

        Raises:
            DataError: nothing to learn, a turn without an end token, a template that rewrites earlier turns or begins
                an answer otherwise than its generation prompt does, a doubled BOS, a control token in the text.
        """
        turns = [i for i, message in enumerate(row.messages) if message.role == "assistant"]
        if not turns:
            raise self._refusal(row.id, "no assistant turn, so nothing to learn (zero trained tokens)")
        self._refuse_controls(row.id, row.messages)
        if self._marks_answers:
            ids, spans = self._marked(row, turns)
        else:
            ids, spans = self._turn_by_turn(row, turns)
        act = [False] * len(ids)
        for start, stop in spans:
            act[start:stop] = [True] * (stop - start)
        return ids, act

    def prompt(self, row: Prompt) -> TokenPrompt:
        """The prompt with the beginning of its answer, if it has a prefill, cut on ids.

        The whole prefill is encoded as an answer in one go and its first ``prefill_tokens`` ids are kept, so the last
        kept token is the one the whole text has there.

        Raises:
            DataError: ``prefill_tokens`` is more than there are, or as for ``answer``.
        """
        ids = self._prompt_ids_of(row)
        if not row.prefill:
            if row.prefill_tokens:
                raise self._refusal(row.id, "prefill_tokens without a prefill")
            return TokenPrompt(row.id, ids, 0, row.columns)
        full, _ = self._rendered_answer(row, row.prefill)
        begun = self._without_tail(full[len(ids) : -1])
        keep = len(begun) if row.prefill_tokens is None else row.prefill_tokens
        if keep > len(begun):
            raise self._refusal(row.id, f"prefill_tokens is {keep}, but the prefill has {len(begun)} tokens")
        return TokenPrompt(row.id, (*ids, *begun[:keep]), keep, row.columns)

    def _without_tail(self, ids: list[int]) -> list[int]:
        """An answer's ids without what the template writes between content and end token (usually nothing)."""
        while self._tail and ids and cast(str, self.tokenizer.decode(ids)).endswith(self._tail):
            ids = ids[:-1]
        return ids

    def answer(self, row: Prompt, text: str) -> tuple[list[int], list[bool]]:
        """The conversation with this answer up to the first end token of its last turn, and nothing after it.

        ``text`` is the complete answer; a prompt's prefill is part of it. The flags are True on the answer's tokens,
        end token included, so the first True is where the answer starts.

        Raises:
            DataError: the answer does not begin where the generation prompt ends, a doubled BOS, a control token.
        """
        return self._rendered_answer(row, text)

    def messages(self, row: Prompt) -> tuple[dict[str, str], ...]:
        """The prompt's turns as role and content, for scorers."""
        return tuple(_plain(row.messages))

    def decode(self, ids: Iterable[int]) -> str:
        """Text of an answer (prefill and sampled ids together), without end tokens and special tokens."""
        kept = [int(i) for i in ids if int(i) not in self.end_ids]
        text = self.tokenizer.decode(kept, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return cast(str, text).removeprefix(self._lead).removesuffix(self._tail)

    # ---- rendering

    def _text(self, row_id: str, messages: Sequence[Message], *, ask: bool) -> str:
        try:
            text = self.tokenizer.apply_chat_template(
                _plain(messages), chat_template=self.chat_template, tokenize=False, add_generation_prompt=ask
            )
        except (TemplateError, TypeError, ValueError, KeyError) as error:
            raise self._refusal(row_id, f"the chat template refuses this conversation ({error})") from error
        return cast(str, text)

    def _render(self, row_id: str, messages: Sequence[Message], *, ask: bool) -> tuple[int, ...]:
        text = self._text(row_id, messages, ask=ask)
        ids = tuple(cast(list[int], self.tokenizer(text, add_special_tokens=False)["input_ids"]))
        self._refuse_double_bos(row_id, ids)
        return ids

    def _render_prompt(self, row_id: str, messages: tuple[Message, ...]) -> tuple[int, ...]:
        return self._render(row_id, messages, ask=True)

    def _prompt_ids_of(self, row: Prompt) -> tuple[int, ...]:
        self._refuse_controls(row.id, row.messages)
        try:
            return self._prompt_ids("", row.messages)
        except DataError as error:
            raise DataError(error.problem, where=Where(row.id), fix=error.fix) from error

    def _rendered_answer(self, row: Prompt, text: str) -> tuple[list[int], list[bool]]:
        turn = Message("assistant", text)
        prompt = self._prompt_ids_of(row)
        self._refuse_controls(row.id, (turn,))
        full = self._render(row.id, (*row.messages, turn), ask=False)
        start, stop = self._answer_span(row.id, prompt, full)
        return list(full[:stop]), [False] * start + [True] * (stop - start)

    def _answer_span(self, row_id: str, prompt: tuple[int, ...], full: tuple[int, ...]) -> tuple[int, int]:
        """Where the answer after ``prompt`` starts and, past its first end token, stops."""
        start = len(prompt)
        if full[:start] != prompt:
            raise self._refusal(
                row_id,
                "the prompt is not a token prefix of the conversation with its answer: the template rewrites earlier "
                "turns or begins an answer otherwise than its generation prompt, or the answer's first characters "
                "merge with the prompt's last token",
            )
        for at in range(start, len(full)):
            if full[at] in self.end_ids:
                return start, at + 1
        raise self._refusal(row_id, "the template writes no end token after the answer")

    def _marked(self, row: Demonstration, turns: list[int]) -> tuple[list[int], list[tuple[int, int]]]:
        """Spans from ``{% generation %}``, each cut after its first end token."""
        try:
            out = self.tokenizer.apply_chat_template(
                _plain(row.messages),
                chat_template=self.chat_template,
                tokenize=True,
                return_dict=True,
                return_assistant_tokens_mask=True,
            )
        except (TemplateError, TypeError, ValueError, KeyError) as error:
            raise self._refusal(row.id, f"the chat template refuses this conversation ({error})") from error
        ids, mask = cast(Any, out)["input_ids"], cast(Any, out)["assistant_masks"]
        self._refuse_double_bos(row.id, ids)
        runs = _runs(mask)
        if len(runs) != len(turns):
            raise self._refusal(row.id, f"the template marks {len(runs)} of {len(turns)} assistant turns as generated")
        spans = []
        for start, stop in runs:
            # A block may leave its end token outside; the model samples it all the same.
            end = next((at for at in range(start, min(stop + 1, len(ids))) if ids[at] in self.end_ids), None)
            if end is None:
                raise self._refusal(row.id, "an assistant turn without its end token")
            spans.append((start, end + 1))
        if spans[0][0] == 0:
            raise self._refusal(row.id, "the first token is marked as generated, but nothing precedes it")
        # A conversation that opens with its only assistant turn has no prompt to compare with.
        prompt = self._render(row.id, row.messages[: turns[-1]], ask=True) if turns[-1] else None
        if prompt is not None and tuple(ids[: spans[-1][0]]) != prompt:
            raise self._refusal(
                row.id, "the prompt of the last turn is not the token prefix at which the template starts its answer"
            )
        return list(ids), spans

    def _turn_by_turn(self, row: Demonstration, turns: list[int]) -> tuple[list[int], list[tuple[int, int]]]:
        """Spans from rendering up to each turn; every one has to reappear unchanged in the whole."""
        full = self._render(row.id, row.messages, ask=False)
        spans = []
        for turn in turns:
            upto = self._render(row.id, row.messages[: turn + 1], ask=False)
            prompt = self._render(row.id, row.messages[:turn], ask=True)
            start, stop = self._answer_span(row.id, prompt, upto)
            if full[:stop] != upto[:stop]:
                raise self._refusal(row.id, f"the template rewrites turn {turn + 1} when later turns follow")
            spans.append((start, stop))
        return list(full), spans

    # ---- what the template does, found once

    def _probe(self) -> tuple[tuple[int, ...], str, str]:
        """End tokens, and the text a template puts before and after an answer's content (usually none)."""
        where = Where(f"template '{self.template}'" if self.template else "the tokenizer's own template")
        fix = f"choose another template (known: {', '.join(TEMPLATES)})"
        try:
            prompt, whole = self._text("", _PROBE[:1], ask=True), self._text("", _PROBE, ask=False)
        except DataError as error:
            raise ModelError(error.problem, where=where, fix=fix) from error
        if not whole.startswith(prompt):
            raise ModelError("an answer does not begin with the template's own generation prompt", where=where, fix=fix)
        lead, found, after = whole[len(prompt) :].partition(_PROBE[1].content)
        if not found:
            raise ModelError("the template does not write an answer's text as it is", where=where, fix=fix)
        added = {i: str(t) for i, t in self.tokenizer.added_tokens_decoder.items() if str(t).strip()}
        here = [(after.find(t), -len(t), i) for i, t in (added | self._special).items() if t in after]
        if not here:
            raise ModelError("the template writes no end token after an assistant turn", where=where, fix=fix)
        at, _, end = min(here)
        eos = self.tokenizer.eos_token_id
        return (end, eos) if isinstance(eos, int) and eos != end else (end,), lead, after[:at]

    def _choose_pad(self) -> int:
        """The pad token, the unknown token, another special token, or id 0: the first that ends no turn."""
        tokenizer, bos = self.tokenizer, self.tokenizer.bos_token_id
        others = sorted(i for i in self._special if i != bos)
        for candidate in (tokenizer.pad_token_id, tokenizer.unk_token_id, *others, bos):
            if isinstance(candidate, int) and candidate not in self.end_ids:
                return candidate
        return next(i for i in range(len(tokenizer)) if i not in self.end_ids)

    # ---- refusals

    def _refusal(self, row_id: str, problem: str) -> DataError:
        return DataError(problem, where=Where(row_id), fix="repair or leave out this row, or choose another template")

    def _refuse_double_bos(self, row_id: str, ids: Sequence[int]) -> None:
        bos = self.tokenizer.bos_token_id
        if bos is not None and list(ids[:2]) == [bos, bos]:
            raise self._refusal(row_id, "the conversation begins with two BOS tokens (doubled BOS)")

    def _refuse_controls(self, row_id: str, messages: Iterable[Message]) -> None:
        """Text that would be read as a token with a meaning: it could end a turn, or begin one that nobody wrote."""
        for message in messages:
            if found := self._control.search(message.content):
                raise self._refusal(row_id, f"the {message.role} turn contains the control token {found.group()!r}")


def _text_of(tokenizer: PreTrainedTokenizerBase, template: str | None) -> str:
    if template is not None:
        return template if "{{" in template or "{%" in template else template_text(template)
    try:
        return tokenizer.get_chat_template()
    except ValueError as error:
        raise ModelError(
            "the tokenizer has no chat template", fix="name one (template: chatml, or plain for base models)"
        ) from error


def _refuse_spelled_out(tokenizer: PreTrainedTokenizerBase, template: str | None) -> None:
    """A named template needs its tokens in the vocabulary."""
    known = tokenizer.get_vocab()
    absent = [token for token in TOKENS.get(template or "", ()) if token not in known]
    if absent:
        raise ModelError(
            f"the tokenizer has no token {', '.join(absent)}, which template '{template}' writes",
            where=Where(f"template '{template}'"),
            fix="use the template that the model was trained with, or plain for a base model",
        )


def _plain(messages: Iterable[Message]) -> list[dict[str, str]]:
    return [{"role": message.role, "content": message.content} for message in messages]


def _piece(tokenizer: PreTrainedTokenizerBase, token: int) -> str:
    return cast(str, tokenizer.convert_ids_to_tokens(token))


def _runs(mask: Sequence[int]) -> list[tuple[int, int]]:
    """``[start, stop)`` of each stretch of ones: ``[0, 1, 1, 0, 1]`` gives ``[(1, 3), (4, 5)]``."""
    edges = [i for i, (a, b) in enumerate(pairwise([0, *mask, 0])) if a != b]
    return list(zip(edges[::2], edges[1::2], strict=True))
