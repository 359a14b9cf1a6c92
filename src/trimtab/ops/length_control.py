"""A proportional controller that keeps the mean length of answers where it was before training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from torch import Tensor

_RECENT = 0.5
"""Weight of the newest rollout in the running mean: 64 answers of 20 ± 12 tokens alone are known to 7 % only."""


@dataclass(frozen=True)
class LengthHold:
    """Mean length (tokens) of answers before training and of late.

    Attributes:
        count: answers in the reference.
        reference: their mean length.
        recent: exponential running mean over the rollouts since; the reference until there is one.
    """

    count: int = 0
    reference: float = 0.0
    recent: float = 0.0

    def update(self, length_N: Tensor, min_count: int) -> LengthHold:
        """After a rollout with answers of ``length_N`` [N] tokens: whole rollouts go into the reference until
        ``min_count`` answers are in it, later ones into ``recent``."""
        n, mean = length_N.numel(), float(length_N.double().mean())
        if self.count < min_count:
            reference = (self.count * self.reference + n * mean) / (self.count + n)
            return LengthHold(self.count + n, reference, reference)
        return replace(self, recent=(1 - _RECENT) * self.recent + _RECENT * mean)

    @property
    def excess(self) -> float:
        """How much longer answers have become, as a share of the reference."""
        return self.recent / self.reference - 1 if self.reference else 0.0

    def reward_N(self, length_N: Tensor, gain: float) -> Tensor:
        """What ending sooner or later is worth, [N], mean 0: -gain · excess · (length - mean length)/reference."""
        if not self.reference:
            return length_N.new_zeros(length_N.shape)
        return -gain * self.excess * (length_N - length_N.mean()) / self.reference

    def state(self) -> dict[str, float]:
        return {"count": self.count, "reference": self.reference, "recent": self.recent}

    @classmethod
    def from_state(cls, state: Mapping[str, float]) -> LengthHold:
        return cls(int(state["count"]), float(state["reference"]), float(state["recent"]))
