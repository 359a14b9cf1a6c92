"""Recipe keys under ``data``. Torch-free."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal

Kind = Literal["demonstrations", "comparisons", "feedback", "prompts", "ratings"]


@dataclass(frozen=True)
class Fail:
    """One bad row ends the run before it starts; all of them are named."""

    word: ClassVar[str] = "fail"


@dataclass(frozen=True)
class Skip:
    """Bad rows are left out and listed, unless they are more than this share.

    Attributes:
        share: largest share of all rows that may be bad, 0..1.
    """

    word: ClassVar[str] = "skip"
    share: float = 0.01


OnBadRows = Fail | Skip


@dataclass(frozen=True)
class DataConfig:
    """A dataset.

    Attributes:
        source: ``vader-films``, or files: a path, a pattern with ``*``, or a list of them. JSONL, JSON, CSV, TSV (all
            also with .gz) or Parquet; relative to the folder the run is started in.
        kind: what the rows are; absent = found out from the columns, and said.
        columns: our column's name to the file's, e.g. ``{prompt: question, completion: answer}``.
        on_bad_rows: ``fail``, or ``{skip: 0.01}`` to leave out at most this share.
        heldout: share of prompts held out, 0..1; the same prompt is always on the same side; absent = 0.05.
        limit: use at most this many rows, after the seeded shuffle and before the split; absent = all.
    """

    source: str | tuple[str, ...]
    kind: Kind | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    on_bad_rows: OnBadRows = field(default_factory=Fail)
    heldout: float | None = None
    limit: int | None = None
