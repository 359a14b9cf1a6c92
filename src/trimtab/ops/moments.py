"""Running mean and variance of everything seen so far, and rewards in their units.

T. F. Chan, G. H. Golub, R. J. LeVeque, "Algorithms for Computing the Sample Variance" (1983), eq. 2.1: moments of
parts merge into the moments of the whole, so batches and processes give one result. State is three Python numbers.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass

from torch import Tensor


@dataclass(frozen=True)
class Moments:
    """Count, mean and sum of squared deviations from the mean.

    ``Moments(**json.loads(json.dumps(m.state())))`` equals ``m`` exactly: JSON keeps Python floats to the bit.
    """

    count: int = 0
    mean: float = 0.0
    m2: float = 0.0

    def update(self, values: Iterable[float] | Tensor) -> Moments:
        """These moments with ``values`` added. The order within ``values`` does not matter, to the bit.

        Raises:
            ValueError: a value is not finite (one would spoil the moments for the rest of the run).
        """
        xs = values.detach().flatten().tolist() if isinstance(values, Tensor) else list(values)
        if not all(map(math.isfinite, xs)):
            raise ValueError("moments of values that are not finite")
        if not xs:
            return self
        mean = math.fsum(xs) / len(xs)
        return self.merge(Moments(len(xs), mean, math.fsum((x - mean) ** 2 for x in xs)))

    def merge(self, other: Moments) -> Moments:
        """Moments of both sets together. Merge processes in a fixed order: the result depends on it in the last bit."""
        if not self.count or not other.count:
            return other if not self.count else self
        count = self.count + other.count
        delta = other.mean - self.mean
        mean = self.mean + delta * (other.count / count)
        return Moments(count, mean, self.m2 + other.m2 + delta * delta * (self.count * other.count / count))

    @property
    def std(self) -> float:
        """Sample standard deviation, √(m2/(count - 1)); 0 below two values."""
        return math.sqrt(self.m2 / (self.count - 1)) if self.count > 1 else 0.0

    @property
    def unit(self) -> float:
        """What ``normalise`` and ``scale`` divide by: ``std``, or 1 while all values seen are equal.

        Equal means closer than float32 can tell apart, else rounding noise would be blown up to size 1.
        """
        return self.std if self.std > 1e-7 * abs(self.mean) else 1.0

    def state(self) -> dict[str, float]:
        """JSON-able; ``from_state`` reads it back exactly."""
        return asdict(self)

    @classmethod
    def from_state(cls, state: Mapping[str, float]) -> Moments:
        return cls(int(state["count"]), float(state["mean"]), float(state["m2"]))


def normalise(x: Tensor, moments: Moments) -> Tensor:
    """(x - μ)/σ, any shape (reward normalisation of arXiv 2307.04964, §5.3)."""
    return (x - moments.mean) / moments.unit


def scale(x: Tensor, moments: Moments) -> Tensor:
    """x/σ, any shape: the size changes, the sign and the zero do not."""
    return x / moments.unit
