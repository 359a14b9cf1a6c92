"""Supervised fine-tuning: cross entropy on the learned tokens, averaged over the tokens of the whole minibatch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from trimtab.algorithms.sft.config import SFTConfig
from trimtab.batch import FlatBatch, Sequence, flatten
from trimtab.models.bundle import Bundle
from trimtab.protocols import Boundary, Metrics, Minibatch, StepReport, Totals
from trimtab.train.best import Best
from trimtab.train.optimizer import trainable
from trimtab.train.passes import Passes


@torch.no_grad()
def nll(bundle: Bundle, rows: list[Sequence], token_budget: int) -> float:
    """Mean negative log-likelihood per learned token over all rows, in nats."""
    total, tokens = 0.0, 0
    for micro in flatten(rows).micro_batches(token_budget):
        logp_T = bundle(("policy",), micro.to(bundle.device))["policy"]["logp_T"]
        total -= float(logp_T.double().sum())
        tokens += int(micro.act_T.sum())
    return total / tokens


class SFT:
    """The algorithm ``fit`` drives. ``rows`` have ``act`` True where a token is learned.

    Args:
        bundle: with a ``policy`` part.
        rows: training rows.
        heldout: rows for the held-out NLL, measured before training and after every epoch; the best epoch is kept.
        best: folder for the best epoch's weights; None keeps no copy.
    """

    def __init__(
        self,
        bundle: Bundle,
        rows: list[Sequence],
        config: SFTConfig,
        *,
        seed: int,
        stage: str,
        heldout: list[Sequence] | None = None,
        best: Path | None = None,
    ) -> None:
        self.bundle, self.rows, self.heldout, self.config = bundle, rows, heldout or [], config
        self.passes = Passes([1] * len(rows), config.epochs, config.minibatch, seed, stage)
        self.trainables = {
            "policy": trainable(bundle.trained("policy"), config.optimizer, self.passes.updates),
        }
        self.best = Best(best)
        self.started = False

    def batches(self) -> Iterator[Minibatch | Boundary]:
        if not self.started:
            self.started = True
            yield Boundary(0, self._measure(0))
        for items, ends, last in self.passes:
            yield Minibatch(flatten(self.rows[i] for i in items), self.passes.update - 1)
            yield Boundary(self.passes.update, self._measure(self.passes.update) if ends else {}, last)

    def _measure(self, version: int) -> dict[str, float]:
        if not self.heldout:
            return {}
        loss = nll(self.bundle, self.heldout, self.config.train.token_budget)
        if version:
            self.best.offer([loss], version, self.trainables["policy"].parameters)
        return {"heldout/nll": loss}

    def totals(self, batch: FlatBatch) -> Totals:
        return {"tokens": float(batch.act_T.sum())}

    def couple(self, batch: FlatBatch) -> FlatBatch:
        return batch

    def loss(self, batch: FlatBatch, totals: Totals) -> tuple[Tensor, Metrics]:
        logp_T = self.bundle(("policy",), batch)["policy"]["logp_T"]
        loss = -logp_T.sum() / totals["tokens"]
        return loss, {"loss/nll": float(loss.detach()), "tokens": float(batch.act_T.sum())}

    def observe(self, report: StepReport) -> None:
        """Nothing depends on a step."""

    def state_dict(self) -> dict[str, Any]:
        return {"passes": self.passes.state_dict(), "best": self.best.state_dict(), "started": self.started}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.passes.load_state_dict(state["passes"])
        self.best.load_state_dict(state["best"])
        self.started = bool(state["started"])
