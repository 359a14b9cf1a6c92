"""Supervised fine-tuning: what is learned and what is not, and a small language that is learned."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import toys
from data import tiny
from trimtab.algorithms.sft import sft as module
from trimtab.algorithms.sft.config import SFTConfig
from trimtab.algorithms.sft.sft import SFT, nll
from trimtab.algorithms.sft.stage import sequence_of
from trimtab.batch import Sequence, flatten
from trimtab.data.template import Renderer
from trimtab.records import Demonstration, Message
from trimtab.train.fit import fit

TALK = Demonstration(
    "talk",
    (
        Message("system", "Be brief."),
        Message("user", "the food"),
        Message("assistant", "good"),
        Message("user", "and?"),
        Message("assistant", "no more"),
    ),
)


@pytest.mark.parametrize("template", [tiny.CHAT, tiny.CHAT_MARKED], ids=["rendered turn by turn", "marked"])
def test_answers_with_their_end_tokens_are_learned_and_nothing_else(template: str) -> None:
    tokenizer = tiny.tokenizer()
    row = sequence_of(TALK, Renderer(tokenizer, template))
    learned = [i for i, act in zip(row.ids, row.act, strict=True) if act]
    assert tokenizer.decode(learned) == "good<end>no more<end>"
    assert tokenizer.decode(list(row.ids)).startswith("[system]Be brief.<end>\n[user]the food<end>\n[assistant]good")


def test_loss_on_all_learns_every_token_that_has_a_predecessor() -> None:
    row = sequence_of(TALK, Renderer(tiny.tokenizer(), tiny.CHAT), "all")
    assert row.act == [False, *[True] * (len(row.ids) - 1)]


def algorithm_of(rows: list[Sequence], held: list[Sequence], best: Path | None = None, **parts: Any) -> SFT:
    bundle = toys.bundle_of("llama", "separate", width=32)
    bundle.add_policy()
    settings = SFTConfig(model="m", data="d", **({"optimizer": toys.FAST, "train": toys.train_config(2000)} | parts))
    return SFT(bundle, rows, settings, seed=1, stage="sft", heldout=held, best=best)


def test_the_loss_is_a_mean_over_tokens_of_the_whole_minibatch() -> None:
    """One row of one learned token at 4 nats, one of three at 1 nat: 7/4, not the rows' mean 2.5."""
    rows = [Sequence([9, 3], [False, True]), Sequence([9, 3, 4, 5], [False, True, True, True])]
    algorithm = algorithm_of(rows, [])
    batch = flatten(rows)
    logp_T = torch.tensor([0.0, -4.0, 0.0, -1.0, -1.0, -1.0], requires_grad=True)
    algorithm.bundle.forward = lambda tasks, batch: {"policy": {"logp_T": logp_T}}  # type: ignore[method-assign,assignment]
    loss, metrics = algorithm.loss(batch, algorithm.totals(batch))
    loss.backward()
    assert float(loss.detach()) == metrics["loss/nll"] == 7 / 4 and metrics["tokens"] == 4
    assert logp_T.grad is not None and logp_T.grad.tolist() == [-0.25] * 6
    assert nll(algorithm.bundle, rows, 1000) == 7 / 4


def test_what_is_not_learned_is_read_but_not_predicted() -> None:
    """The same learned tokens after another prompt: the loss changes through the context, and only through it."""
    row = Sequence([9, 3, 4, 5, 6], [False, False, False, True, True])
    algorithm = algorithm_of([row], [])
    batch = flatten([row])
    logp_T = algorithm.bundle(("policy",), batch)["policy"]["logp_T"]
    assert (logp_T[:3] == 0).all() and (logp_T[3:] < 0).all()
    longer = flatten([Sequence([9, 3, 4, 5, 6, 7], [False, False, False, True, True, False])])
    loss = algorithm.loss(batch, algorithm.totals(batch))[0]
    assert torch.equal(loss, algorithm.loss(longer, algorithm.totals(longer))[0]), "what follows changes nothing"
    other = flatten([Sequence([9, 8, 4, 5, 6], row.act)])
    assert not torch.equal(loss, algorithm.loss(other, algorithm.totals(other))[0])


def test_held_out_nll_does_not_depend_on_the_token_budget() -> None:
    algorithm = algorithm_of(toys.texts(4), [])
    rows = toys.texts(7, "held")
    assert nll(algorithm.bundle, rows, 1) == pytest.approx(nll(algorithm.bundle, rows, 10_000), rel=1e-6)


def chain(count: int, *name: str) -> list[Sequence]:
    """A language with one rule: after token t comes t + 1, and after the last one the first. The start is free."""
    size = toys.VOCABULARY - 3
    rows = []
    for i in range(count):
        start = toys.draw(1, "chain", i, *name)[0] - 3
        ids = [3 + (start + step) % size for step in range(4 + i % 4)]
        rows.append(Sequence(ids, [False] + [True] * (len(ids) - 1), f"c{i}"))
    return rows


def test_a_language_is_learned(tmp_path: Path) -> None:
    """Its held-out entropy is 0; at the start a token costs about log 23 = 3.1 nats or more."""
    algorithm = algorithm_of(chain(60), chain(20, "held"), tmp_path / "best", epochs=10, minibatch=12)
    fit(algorithm, toys.loop(tmp_path, toys.train_config(2000, every_s=1e9)))
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    found = {r["version"]: r["heldout/nll"] for r in rows if "heldout/nll" in r}
    assert list(found) == [0, *range(5, 51, 5)], "before training, and after every epoch"
    assert found[0] > 2.5 and found[50] < 0.2, found
    updates = [r for r in rows if r["kind"] == "update"]
    assert len(updates) == 50 and sum(r["tokens"] for r in updates) == 10 * sum(sum(row.act) for row in chain(60))


def test_the_best_epoch_is_kept_and_restored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Held-out NLLs are dictated: before training, then three epochs of which the second is best."""
    algorithm = algorithm_of(toys.texts(8), toys.texts(2, "held"), tmp_path / "best", epochs=3, minibatch=4)
    states: list[dict[str, Tensor]] = []

    def dictated(*args: Any) -> float:
        states.append(toys.weights(algorithm))
        return [0.1, 3.0, 1.0, 2.0][len(states) - 1]

    monkeypatch.setattr(module, "nll", dictated)
    fit(algorithm, toys.loop(tmp_path, toys.train_config(2000, every_s=1e9)))
    assert len(states) == 4 and algorithm.best.key == [1.0] and algorithm.best.version == 4
    algorithm.best.restore(algorithm.trainables["policy"].parameters)
    assert all(torch.equal(t, states[2][n]) for n, t in toys.weights(algorithm).items())
    assert any(not torch.equal(t, states[3][n]) for n, t in toys.weights(algorithm).items())
