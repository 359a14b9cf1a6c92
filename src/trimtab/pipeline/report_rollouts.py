"""``rollouts.jsonl`` by version: scores, lengths, distances and repetition of every sampled answer. Torch-free.

The ledger is read row by row; of the ids only what is counted is kept.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Rollout:
    """The answers of one version.

    Attributes:
        version: whose weights sampled them.
        scores, rewards: raw and shaped, of the answers that have one.
        kls: Σ log π - log π_ref of each answer, nats; empty where an older run did not write them.
        lengths: sampled tokens, end token included.
        truncated: how many reached the limit.
        distinct: different n-grams of token ids / n-grams, all answers together, for n = 1, 2.
        repeated: share of 4-grams that occurred before in the same answer.
    """

    version: int
    scores: Sequence[float]
    rewards: Sequence[float]
    kls: Sequence[float]
    lengths: Sequence[int]
    truncated: int
    distinct: tuple[float | None, float | None]
    repeated: float | None


def rollouts_of(rows: Iterable[Row]) -> tuple[Rollout, ...]:
    """One per version, in order; of a version that comes twice the last."""
    found = {}
    for version, group in groupby(rows, key=lambda row: row.get("version")):
        if isinstance(version, int) and not isinstance(version, bool):
            found[version] = _rollout(version, group)
    return tuple(found[version] for version in sorted(found))


def _rollout(version: int, rows: Iterable[Row]) -> Rollout:
    numbers: dict[str, list[float]] = {"score": [], "reward": [], "kl": []}
    lengths, truncated, seen = [], 0, (_Grams(), _Grams())
    repeated = total = 0
    for row in rows:
        for name, values in numbers.items():
            value = row.get(name)
            if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e100:
                values.append(float(value))
        ids = row.get("ids")
        ids = [i for i in ids if isinstance(i, int)] if isinstance(ids, list) else []
        truncated += row.get("finish") == "length"
        lengths.append(len(ids))
        told = ids[:-1] if row.get("finish") == "end" else ids  # an end token is no word of the answer
        for n, grams in enumerate(seen, 1):
            grams.add(told, n)
        four = [tuple(told[i : i + 4]) for i in range(len(told) - 3)]
        repeated, total = repeated + len(four) - len(set(four)), total + len(four)
    return Rollout(
        version,
        numbers["score"],
        numbers["reward"],
        numbers["kl"],
        lengths,
        truncated,
        (seen[0].share, seen[1].share),
        repeated / total if total else None,
    )


class _Grams:
    """distinct-n (arXiv 1510.03055), counted answer by answer."""

    def __init__(self) -> None:
        self.different: set[tuple[int, ...]] = set()
        self.total = 0

    def add(self, ids: Sequence[int], n: int) -> None:
        grams = [tuple(ids[i : i + n]) for i in range(len(ids) - n + 1)]
        self.different.update(grams)
        self.total += len(grams)

    @property
    def share(self) -> float | None:
        return len(self.different) / self.total if self.total else None
