"""Epochs over a fixed list of items: keyed order, minibatches, and a cursor that is the whole state."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from trimtab.runtime.seeds import permutation


@dataclass
class Passes:
    """``epochs`` passes over ``sizes`` items, each pass in an order keyed by (seed, stage, epoch).

    Attributes:
        sizes: sequences that each item brings (a ranking of K answers brings K).
        minibatch: sequences per update; items are added until it is reached, and never split.
    """

    sizes: Sequence[int]
    epochs: int
    minibatch: int
    seed: int
    stage: str
    epoch: int = 0
    cursor: int = 0
    update: int = 0

    def plan(self, epoch: int) -> list[list[int]]:
        """Minibatches of one pass, as item indices."""
        plan: list[list[int]] = [[]]
        used = 0
        for item in permutation(len(self.sizes), self.seed, self.stage, "epoch", epoch):
            if plan[-1] and used + self.sizes[item] > self.minibatch:
                plan.append([])
                used = 0
            plan[-1].append(item)
            used += self.sizes[item]
        return plan

    @property
    def updates(self) -> int:
        """Updates in all."""
        return sum(len(self.plan(epoch)) for epoch in range(self.epochs))

    def __iter__(self) -> Iterator[tuple[list[int], bool, bool]]:
        """``(items, ends an epoch, is the last)`` from the cursor on; the cursor moves *before* the item is yielded,

        so a state taken after the item was used continues with the next one.
        """
        while self.epoch < self.epochs:
            plan = self.plan(self.epoch)
            while self.cursor < len(plan):
                items = plan[self.cursor]
                self.cursor += 1
                self.update += 1
                ends = self.cursor == len(plan)
                if ends:
                    self.epoch, self.cursor = self.epoch + 1, 0
                yield items, ends, ends and self.epoch == self.epochs
                if ends:
                    break

    def state_dict(self) -> dict[str, int]:
        return {"epoch": self.epoch, "cursor": self.cursor, "update": self.update}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.epoch, self.cursor, self.update = (int(state[key]) for key in ("epoch", "cursor", "update"))
