"""The in-process sampler: it decodes on the trainer's own tensors, so it is never behind the weights.

An answer is a function of the weights, the prompt, the sampling parameters and the random stream named by (seed, stage,
version, attempt, prompt id, sample). Which other prompts are in the call, their order, how a call is split and how many
slots are in use change nothing, to the bit, on one machine with one number of threads and one number of ``slots``:
every matrix product has a fixed shape (``sampling.decode``), and position k of an answer uses the stream's k-th number.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from trimtab.errors import Diverged
from trimtab.models.bundle import logit_map_of
from trimtab.models.flat import Body, Mode, decoder_of, set_mode
from trimtab.ops.sampling import final_logits, greedy, inverse_cdf, penalise_repetition
from trimtab.protocols import SamplingParams, StreamKey, TokenPrompt
from trimtab.records import Completion, Finish
from trimtab.runtime.seeds import uniforms
from trimtab.sampling.checks import check_params, check_prompts
from trimtab.sampling.decode import CachedDecoder, Decoder, RecomputingDecoder, Text, parity

_LOG = logging.getLogger(__name__)
SLOT_MULTIPLE = 8
"""Slots come in eights: with 6 rows in float32, MKL sums the rows at the edge of a tile in another order."""
_PARITY = {torch.bfloat16: 0.1, torch.float16: 0.02}  # others: 1e-3
"""Largest relative difference of a hidden state between cached decoding and the flat forward (seen: 1e-6, 0.02)."""


@dataclass
class _Answer:
    """An answer on its way."""

    prompt: TokenPrompt
    sample: int
    uniform_k: npt.NDArray[np.float64]
    text: Text = field(init=False)
    logps: list[float] = field(default_factory=list)
    finish: Finish | None = None
    cut: str | None = None
    """The answer's text up to a stop string."""

    def __post_init__(self) -> None:
        self.text = Text(list(self.prompt.ids), self.prompt.prefill)

    @property
    def ids(self) -> list[int]:
        """What was sampled."""
        return self.text.ids[len(self.prompt.ids) :]


class LocalSampler:
    """``protocols.Sampler`` on a live language model.

    Args:
        lm: the model; its weights may change between calls, and its attention is set for ``mode``.
        mode: from ``models.load.probe``. ``padded`` has no cache: every token recomputes its text (announced once).
        end_ids: tokens that end an answer.
        decode: ids to text, without special tokens.
        slots: texts decoded at one time, rounded up to a multiple of 8. It orders sums: with another number of slots
            the same streams may give other tokens, so it belongs to what a run fixes at its start.
        capacity: tokens of the longest prompt and its answer that are accepted; None = as many as the model has
            positions. It changes no number, and memory is only taken for what a call needs.
        say: told, once each, that the slow path is used or that this machine does not keep slots apart.
    """

    def __init__(
        self,
        lm: PreTrainedModel,
        mode: Mode,
        *,
        end_ids: tuple[int, ...],
        decode: Callable[[Sequence[int]], str],
        slots: int,
        capacity: int | None = None,
        say: Callable[[str], None] = _LOG.warning,
    ) -> None:
        if slots < 1 or (capacity is not None and capacity < 2):
            raise ValueError(f"a sampler needs at least one slot and room for two tokens, not {slots} and {capacity}")
        self.lm, self.mode, self.end_ids, self.decode = lm, mode, frozenset(end_ids), decode
        self.slots = -(-slots // SLOT_MULTIPLE) * SLOT_MULTIPLE
        limits = (capacity, getattr(lm.config, "max_position_embeddings", None))
        self.room: int | None = min((n for n in limits if n is not None), default=None)
        self.say = say
        self.body = Body(decoder_of(lm), mode)
        self.logit_map = logit_map_of(lm.config)
        self._cached: bool | None = None if mode == "flat" else False
        self._announced = False
        set_mode(lm, mode)

    @torch.no_grad()  # not inference_mode: a buffer that a model makes on the way must be fit for the learner
    def sample(
        self, prompts: Sequence[TokenPrompt], params: SamplingParams, stream: StreamKey, samples: int = 1
    ) -> list[Completion]:
        """``samples`` answers to each prompt, in the order of prompts, then samples.

        ``logps`` are of the distribution that was sampled: temperature, top-p and the rest are folded in; greedy
        answers (temperature 0) have log-probability 0. ``finish`` is "end" where an end token was sampled (it is the
        last of ``ids``), "stop" where the text after the prefill contains a stop string (the text is cut before it,
        ``ids`` are kept as they were sampled), else "length".

        Raises:
            DataError: a prompt that cannot be sampled from (see ``sampling.checks``).
            RecipeError: a sampling parameter out of its range.
            Diverged: the model's logits are not finite.
        """
        check_params(params, samples)
        embedding = cast(nn.Embedding, self.lm.get_input_embeddings())
        check_prompts(prompts, params.max_new_tokens, self.room, embedding.weight.shape[0])
        answers = [
            _Answer(prompt, sample, self._uniforms(prompt, sample, params, stream))
            for prompt in prompts
            for sample in range(samples)
        ]
        if answers:
            with _evaluating(self.lm):
                self._run(answers, params)
        return [self._completion(answer) for answer in answers]

    @staticmethod
    def _uniforms(
        prompt: TokenPrompt, sample: int, params: SamplingParams, stream: StreamKey
    ) -> npt.NDArray[np.float64]:
        name = ("sample", stream.stage, stream.version, stream.attempt, prompt.id, sample)
        return uniforms(params.max_new_tokens, stream.seed, *name)

    @torch.no_grad()
    def settle(self) -> bool:
        """Whether keys and values are cached, decided by the weights as they are at the first call.

        The two ways of decoding round differently. A run that is to resume exactly decides before a checkpoint changes
        the weights, so that every start decides by the same ones.
        """
        if self._cached is None:
            self._cached = self._try_cache()
        return self._cached

    def _decoder(self, answers: Sequence[_Answer], params: SamplingParams) -> Decoder:
        if not self.settle():
            if not self._announced:
                self.say(f"{type(self.lm).__name__} is sampled without a key/value cache: right, but slow")
                self._announced = True
            return RecomputingDecoder(self.body, self.slots)
        longest = max(len(answer.prompt.ids) for answer in answers) + params.max_new_tokens
        return CachedDecoder(self.body, self.slots, longest, [answer.text for answer in answers])

    def _try_cache(self) -> bool:
        """Whether cached decoding gives this model's numbers; also tells whether slots are independent here."""
        gap, same = parity(self.lm, self.body, self.slots)
        if not gap <= _PARITY.get(self.lm.dtype, 1e-3):
            self.say(f"cached decoding is {gap:.2g} off the model's own numbers")
            return False
        if not same:
            self.say(
                f"with {self.slots} slots this machine's products differ by row: "
                "which prompts are sampled together can change an answer's last digits"
            )
        return True

    def _run(self, answers: Sequence[_Answer], params: SamplingParams) -> None:
        decoder = self._decoder(answers, params)
        waiting = deque(answers)
        slots: list[_Answer | None] = [None] * self.slots
        while waiting or any(slots):
            for slot in range(self.slots):
                if slots[slot] is None and waiting:
                    slots[slot] = entering = waiting.popleft()
                    decoder.enter(slot, entering.text)
            hidden_SD = decoder.step([answer.text if answer else None for answer in slots])
            ready = [slot for slot, answer in enumerate(slots) if answer and answer.text.ready]
            if not ready:
                continue
            sampled = [cast(_Answer, slots[slot]) for slot in ready]
            try:
                tokens, logps = self._draw(hidden_SD, ready, sampled, params)
            except Diverged as error:
                among = ", ".join(f"{answer.prompt.id}#{answer.sample}" for answer in sampled)
                raise Diverged(f"{error.problem}, in one of the answers {among}", fix=error.fix) from error
            for slot, answer, token, logp in zip(ready, sampled, tokens, logps, strict=True):
                answer.text.ids.append(token)
                answer.logps.append(logp)
                self._finish(answer, params)
                if answer.finish:
                    slots[slot] = None

    def _draw(
        self, hidden_SD: Tensor, ready: list[int], answers: list[_Answer], params: SamplingParams
    ) -> tuple[list[int], list[float]]:
        """The next token of each answer and its log-probability. All slots meet the vocabulary, the ready are kept."""
        head = cast(nn.Module, self.lm.get_output_embeddings())
        weight_VD = cast(Tensor, head.weight)
        raw_SV = nn.functional.linear(hidden_SD, weight_VD, cast("Tensor | None", getattr(head, "bias", None)))
        logits_RV = self.logit_map(raw_SV[ready])
        seen_RV = None
        if params.repetition_penalty != 1.0:
            seen_RV = torch.zeros(logits_RV.shape, dtype=torch.bool, device=logits_RV.device)
            for row, answer in enumerate(answers):
                seen_RV[row, answer.text.ids] = True
        if params.temperature == 0:
            if seen_RV is not None:
                logits_RV = penalise_repetition(logits_RV, seen_RV, params.repetition_penalty)
            token_R, logp_R = greedy(logits_RV)
        else:
            logits_RV = final_logits(
                logits_RV,
                seen_RV,
                repetition_penalty=params.repetition_penalty,
                temperature=params.temperature,
                top_k=params.top_k,
                top_p=params.top_p,
            )
            uniform_R = torch.tensor([answer.uniform_k[len(answer.logps)] for answer in answers], dtype=torch.float64)
            token_R, logp_R = inverse_cdf(logits_RV, uniform_R.to(logits_RV.device))
        return token_R.tolist(), logp_R.tolist()

    def _finish(self, answer: _Answer, params: SamplingParams) -> None:
        ids = answer.ids
        if ids[-1] in self.end_ids:
            answer.finish = "end"
        elif params.stop and (cut := self._stopped(answer, ids, params.stop)) is not None:
            answer.finish, answer.cut = "stop", cut
        elif len(ids) == params.max_new_tokens:
            answer.finish = "length"

    def _stopped(self, answer: _Answer, ids: list[int], stop: tuple[str, ...]) -> str | None:
        """The text before the first stop string after the prefill, if there is one."""
        prefill = _prefill(answer.prompt)
        text, start = self.decode([*prefill, *ids]), len(self.decode(prefill)) if prefill else 0
        found = [at for at in (text.find(each, start) for each in stop) if at >= 0]
        return text[: min(found)] if found else None

    def _completion(self, answer: _Answer) -> Completion:
        ids, finish = answer.ids, answer.finish
        assert finish is not None
        text = answer.cut
        if text is None:
            text = self.decode([*_prefill(answer.prompt), *(ids[:-1] if finish == "end" else ids)])
        return Completion(
            prompt_id=answer.prompt.id,
            sample=answer.sample,
            prompt_ids=answer.prompt.ids,
            ids=tuple(ids),
            logps=tuple(answer.logps),
            finish=finish,
            text=text,
        )


def _prefill(prompt: TokenPrompt) -> list[int]:
    return list(prompt.ids[len(prompt.ids) - prompt.prefill :])


@contextmanager
def _evaluating(lm: nn.Module) -> Iterator[None]:
    """Dropout off; afterwards every module is as it was."""
    training = [module for module in lm.modules() if module.training]
    lm.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True
