"""Rows in = rows used + rows left out by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from trimtab.data.config import Fail, OnBadRows
from trimtab.errors import DataError, Where


@dataclass(frozen=True)
class LeftOut:
    """One row that is not used: where it stands and why."""

    where: Where
    reason: str

    def as_json(self) -> dict[str, Any]:
        place = {"file": self.where.file, "line": self.where.line, "key": self.where.key}
        return {**{k: v for k, v in place.items() if v not in ("", None)}, "reason": self.reason}


@dataclass
class Account:
    """What happened to every row of a source.

    Attributes:
        source: files, or the name of a built-in source.
        rows_in: rows read.
        used: rows by where they went; the values add up, with ``left_out``, to ``rows_in``.
        left_out: every row that is not used.
        kinds: records made from the used rows, ``kind.split`` -> count (a ranking is one record of several rows).
        detected: what was found out about the columns, in one sentence.
        notes: what is odd about used rows, and how many have it.
    """

    source: list[str]
    rows_in: int = 0
    used: dict[str, int] = field(default_factory=dict)
    left_out: list[LeftOut] = field(default_factory=list)
    kinds: dict[str, int] = field(default_factory=dict)
    detected: str = ""
    notes: dict[str, int] = field(default_factory=dict)

    def note(self, what: str, count: int = 1) -> None:
        """Count something odd; a count of 0 is not kept."""
        if count:
            self.notes[what] = self.notes.get(what, 0) + count

    def check(self) -> None:
        """Conservation, at run time too.

        Raises:
            AssertionError: a row was lost or doubled, which is our bug.
        """
        if self.rows_in != sum(self.used.values()) + len(self.left_out):
            raise AssertionError(f"{self.rows_in} rows in, but {self.used} used and {len(self.left_out)} left out")

    def as_json(self) -> Mapping[str, Any]:
        reasons: dict[str, int] = {}
        for row in self.left_out:
            reasons[row.reason] = reasons.get(row.reason, 0) + 1
        return {
            "source": self.source,
            "detected": self.detected,
            "rows_in": self.rows_in,
            "used": dict(self.used),
            "left_out": len(self.left_out),
            "left_out_by_reason": reasons,
            "left_out_rows": [row.as_json() for row in self.left_out],
            "records": dict(self.kinds),
            "notes": dict(self.notes),
        }


def settle_bad_rows(bad: Sequence[DataError], rows: int, policy: OnBadRows) -> list[LeftOut]:
    """What ``on_bad_rows`` says about the bad rows that were found among ``rows``. Stages use it for rows that a
    template refuses.

    Raises:
        DataError: there are any under ``fail``, or more than the share under ``skip``; it names the first ten.
    """
    share = 0.0 if isinstance(policy, Fail) else policy.share
    if len(bad) > share * rows:
        listed = "".join(f"\n  {error.where}: {error.problem}" for error in bad[:10])
        more = f"\n  and {len(bad) - 10} more" if len(bad) > 10 else ""
        allowed = "" if isinstance(policy, Fail) else f", allowed are {share:.2%}"
        fix = bad[0].fix if len({error.fix for error in bad}) == 1 else "repair them"
        raise DataError(
            f"{len(bad)} of {rows} rows cannot be used ({len(bad) / max(rows, 1):.2%}{allowed}):{listed}{more}",
            where=bad[0].where,
            fix=f"{fix or 'repair them'}; or leave them out with on_bad_rows: {{skip: {_round_up(len(bad) / rows)}}}",
        )
    return [LeftOut(error.where or Where(), error.problem) for error in bad]


def _round_up(share: float) -> float:
    """The next of 0.01, 0.02, ... that admits this share."""
    return min(1.0, (int(share * 100) + 1) / 100)
