"""Running least squares of one number on another: the slope that a whole run's pairs have.

Chan, Golub and LeVeque's update of co-moments (1979), pair by pair, in Python floats: JSON keeps them to the bit.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class CoMoments:
    """Count, means, Σ(x - x̄)², Σ(y - ȳ)² and Σ(x - x̄)(y - ȳ) of all pairs so far."""

    count: int = 0
    mean_x: float = 0.0
    mean_y: float = 0.0
    m2_x: float = 0.0
    m2_y: float = 0.0
    c_xy: float = 0.0

    def update(self, pairs: Iterable[tuple[float, float]]) -> CoMoments:
        """These and more pairs (x, y).

        Raises:
            ValueError: a number is not finite.
        """
        n, mx, my, xx, yy, xy = self.count, self.mean_x, self.mean_y, self.m2_x, self.m2_y, self.c_xy
        for x, y in pairs:
            if not (math.isfinite(x) and math.isfinite(y)):
                raise ValueError(f"({x}, {y}) would spoil the regression for the rest of the run")
            n += 1
            dx, dy = x - mx, y - my
            mx, my = mx + dx / n, my + dy / n
            xx, yy, xy = xx + dx * (x - mx), yy + dy * (y - my), xy + dx * (y - my)
        return CoMoments(n, mx, my, xx, yy, xy)

    @property
    def slope(self) -> float:
        """Least-squares slope of y on x; 0 where x does not vary."""
        return self.c_xy / self.m2_x if self.m2_x > 0 else 0.0

    @property
    def correlation(self) -> float:
        """Pearson's r; 0 where either does not vary."""
        spread = self.m2_x * self.m2_y
        return self.c_xy / math.sqrt(spread) if spread > 0 else 0.0

    def state(self) -> dict[str, float]:
        return asdict(self)

    @classmethod
    def from_state(cls, state: Mapping[str, float]) -> CoMoments:
        return cls(int(state["count"]), *(float(state[k]) for k in ("mean_x", "mean_y", "m2_x", "m2_y", "c_xy")))
