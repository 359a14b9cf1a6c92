"""Reward models that do not read the policy's tokens: another tokenizer, or another chat template.

The answer is cut as text where the policy ended it, written into the conversation by the reward model's own template,
and scored at the reward model's own end token. Tokens never cross: the reward model shares nothing with the policy.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence as Seq
from typing import cast

import torch

from trimtab.algorithms.ppo.experience import TextScores
from trimtab.batch import Sequence, flatten
from trimtab.data.template import Renderer
from trimtab.errors import DataError, Where
from trimtab.models.bundle import Bundle, ScalarPart
from trimtab.records import Completion, Message, Prompt

_TALK = (Message("user", "Is it good?"), Message("assistant", "Yes."), Message("user", "Why?"))
_ASKED = (Prompt("one turn", _TALK[:1]), Prompt("two turns", _TALK), Prompt("", (Message("system", "S."), *_TALK[:1])))


def reads_alike(policy: Renderer, reward: Renderer) -> bool:
    """Whether a reward model reads the policy's ids as the policy wrote them: one vocabulary, and one template up to
    what comes after an answer's end token (which an exported reward model's template leaves out)."""
    a, b = policy.tokenizer.get_vocab(), reward.tokenizer.get_vocab()
    if any(b.get(token) != i for token, i in a.items()):
        return False
    return all(_written(policy, row) == _written(reward, row) for row in _ASKED)


def _written(renderer: Renderer, row: Prompt) -> list[int] | None:
    try:
        return renderer.answer(row, "It is.")[0]
    except DataError:  # many templates know no system turn
        return None


def translated_scores(
    bundle: Bundle,
    renderer: Renderer,
    prompts: Mapping[str, Prompt],
    token_budget: int,
    say: Callable[[str], None] = print,
) -> TextScores:
    """Scores from text by the bundle's ``reward`` part, which reads it in its own way.

    An answer that its template or size refuses (a control token of *its* vocabulary in the text, more tokens than it
    has positions) is not scored and so not learned from; ``quarantined`` counts it, and each reason is said once.

    Args:
        bundle: whose ``reward`` is a whole model, no branch on the policy's trunk.
        renderer: of the reward model.
        prompts: by id, every prompt that a completion may answer.
        token_budget: tokens per forward.
        say: told each reason for which an answer was not scored, the first time.
    """
    part, told = cast(ScalarPart, bundle.parts["reward"]), set[str]()
    config = part.body.decoder.config
    room = getattr(config, "max_position_embeddings", None)

    def read(completion: Completion) -> list[int] | None:
        try:
            ids, _ = renderer.answer(prompts[completion.prompt_id], completion.text)
            if room is not None and len(ids) > room:
                raise DataError(f"{len(ids)} tokens, but the reward model has {room} positions", where=Where())
            return ids
        except DataError as error:
            if error.problem not in told:
                told.add(error.problem)
                say(f"the reward model cannot read an answer to prompt {completion.prompt_id!r}: {error.problem}")
            return None

    @torch.no_grad()
    def score(completions: Seq[Completion]) -> list[float | None]:
        read_N = [read(completion) for completion in completions]
        rows = [Sequence(ids=ids, act=[False] * len(ids)) for ids in read_N if ids is not None]
        found: list[float] = []
        for micro in flatten(rows).micro_batches(token_budget) if rows else ():
            found += bundle(("reward",), micro.to(bundle.device))["reward"]["score_N"].tolist()
        each = iter(found)
        return [None if ids is None else next(each) for ids in read_N]

    return score
