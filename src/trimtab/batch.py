"""The flat batch: all tokens of all sequences on one axis, no padding anywhere.

Axes: ``T`` token, ``N`` sequence, ``M`` decided pair (better, worse) of sequences. A column's name ends in
``_`` and its axes, so selecting sequences knows how to slice it: ``advantage_T``, ``trunk_TD``, ``score_N``,
``margin_M``.

One convention everywhere: what describes token t (``logp_T[t]``, ``value_T[t]``, ``advantage_T[t]``) is read
from the hidden state at ``prev_T[t]``, before token t is known. Only a score reads the state *at* its token.

Example: ``flatten([Sequence(ids=[5, 6, 7], act=[False, True, True])])`` gives
``ids_T=[5, 6, 7]  position_T=[0, 1, 2]  prev_T=[-1, 0, 1]  act_T=[F, T, T]  sequence_T=[0, 0, 0]  start_N1=[0, 3]``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence as Seq
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Sequence:
    """One text on its way into a flat batch: token ids, which of them are actions, and its columns.

    ``token_columns[name]`` has one number per token (name ends in ``_T``), ``columns[name]`` one number
    (``_N``). Sequences with the same ``unit`` stay in one micro-batch: a pair, a ranking, a group.
    """

    ids: Seq[int]
    act: Seq[bool]
    id: str = ""
    unit: int | None = None
    columns: Mapping[str, float | int | bool] = field(default_factory=dict)
    token_columns: Mapping[str, Seq[float] | Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if len(self.ids) != len(self.act):
            raise ValueError(f"sequence {self.id!r}: {len(self.ids)} ids but {len(self.act)} act flags")
        if not self.ids:
            raise ValueError(f"sequence {self.id!r} has no tokens")
        if self.act[0]:
            raise ValueError(f"sequence {self.id!r}: its first token is marked as an action, but nothing precedes it")


@dataclass
class FlatBatch:
    """Sequences on one token axis.

    Attributes:
        ids_T: int64, token ids.
        position_T: int64, position of the token in its own text, from 0.
        prev_T: int64, flat index of the predecessor in its own text; -1 at a start.
        act_T: bool, True where the policy sampled the token (in SFT: where it is learned).
        sequence_T: int64, index of the token's sequence.
        start_N1: int64, first token of each sequence, and T at the end (cumulative lengths of the queries).
        key_start_N1: the same for keys; equal to ``start_N1`` until prefixes are shared.
        unit_N: int64, sequences with equal values stay in one micro-batch.
        pairs_M2: int64, decided pairs ``(better, worse)`` as sequence indices of this batch.
        ids_N: the rows' identifiers, for ledgers and messages.
        columns: everything else, sliced by the axes at the end of its name.
    """

    ids_T: Tensor
    position_T: Tensor
    prev_T: Tensor
    act_T: Tensor
    sequence_T: Tensor
    start_N1: Tensor
    key_start_N1: Tensor
    unit_N: Tensor
    pairs_M2: Tensor
    ids_N: tuple[str, ...]
    columns: dict[str, Tensor] = field(default_factory=dict)

    @property
    def tokens(self) -> int:
        return int(self.ids_T.numel())

    @property
    def sequences(self) -> int:
        return len(self.ids_N)

    @property
    def lengths_N(self) -> Tensor:
        return self.start_N1[1:] - self.start_N1[:-1]

    def __getitem__(self, name: str) -> Tensor:
        return self.columns[name]

    def __contains__(self, name: str) -> bool:
        return name in self.columns

    def with_columns(self, **columns: Tensor) -> FlatBatch:
        """A batch with more columns (or others under the same names); tensors are not copied."""
        sizes = {"T": self.tokens, "N": self.sequences, "M": self.pairs_M2.shape[0]}
        for name, value in columns.items():
            if value.shape[0] != sizes[_axis(name)]:
                raise ValueError(f"column {name} has {value.shape[0]} rows, its axis has {sizes[_axis(name)]}")
        return replace(self, columns={**self.columns, **columns})

    def last_T(self) -> Tensor:
        """int64 [N]: flat index of the last token of each sequence."""
        return self.start_N1[1:] - 1

    def last_action_N(self) -> Tensor:
        """int64 [N]: flat index of the last action of each sequence; -1 where there is none."""
        last = torch.full((self.sequences,), -1, dtype=torch.long, device=self.ids_T.device)
        at = self.act_T.nonzero().squeeze(-1)
        return last.scatter_reduce(0, self.sequence_T[at], at, "amax")

    def select(self, rows: Seq[int] | Tensor) -> FlatBatch:
        """The given sequences, in the given order. Pairs with a member left out are left out."""
        rows = torch.as_tensor(rows, dtype=torch.long)
        lengths = self.lengths_N[rows]
        starts = torch.cat([lengths.new_zeros(1), lengths.cumsum(0)])
        take = torch.cat([torch.arange(int(self.start_N1[r]), int(self.start_N1[r + 1])) for r in rows.tolist()])
        sequence_T = torch.repeat_interleave(torch.arange(len(rows)), lengths)
        shift_T = starts[:-1][sequence_T] - self.start_N1[rows][sequence_T]
        prev = self.prev_T[take]
        where = torch.full((self.sequences,), -1, dtype=torch.long)
        where[rows] = torch.arange(len(rows))
        pairs = where[self.pairs_M2]
        kept = (pairs >= 0).all(-1)
        pick = {"T": take, "N": rows, "M": kept.nonzero().squeeze(-1)}
        return FlatBatch(
            ids_T=self.ids_T[take],
            position_T=self.position_T[take],
            prev_T=torch.where(prev >= 0, prev + shift_T, prev),
            act_T=self.act_T[take],
            sequence_T=sequence_T,
            start_N1=starts,
            key_start_N1=starts,
            unit_N=self.unit_N[rows],
            pairs_M2=pairs[kept],
            ids_N=tuple(self.ids_N[r] for r in rows.tolist()),
            columns={name: value[pick[_axis(name)]] for name, value in self.columns.items()},
        )

    def units(self) -> list[list[int]]:
        """Sequence indices grouped by unit, in order of first appearance."""
        groups: dict[int, list[int]] = {}
        for row, unit in enumerate(self.unit_N.tolist()):
            groups.setdefault(unit, []).append(row)
        return list(groups.values())

    def micro_batches(self, token_budget: int) -> Iterator[FlatBatch]:
        """Parts of at most ``token_budget`` tokens, never splitting a unit.

        A unit larger than the budget forms a micro-batch of its own. The partition depends only on this batch
        and the budget, and (with fp32 accumulators and totals passed in) changes no gradient.
        """
        lengths = self.lengths_N.tolist()
        rows: list[int] = []
        used = 0
        for unit in self.units():
            size = sum(lengths[r] for r in unit)
            if rows and used + size > token_budget:
                yield self.select(rows)
                rows, used = [], 0
            rows += unit
            used += size
        if rows:
            yield self.select(rows)

    def to(self, device: torch.device | str) -> FlatBatch:
        """The same batch with every tensor on ``device``."""
        moved: dict[str, Any] = {
            name: value.to(device) for name, value in vars(self).items() if isinstance(value, Tensor)
        }
        return replace(self, **moved, columns={n: v.to(device) for n, v in self.columns.items()})


def _axis(name: str) -> str:
    axis = name.rsplit("_", 1)[-1][:1]
    if axis not in ("T", "N", "M"):
        raise ValueError(f"column name {name!r} does not end in its axes (_T, _N or _M)")
    return axis


def flatten(rows: Iterable[Sequence], pairs: Seq[tuple[int, int]] = ()) -> FlatBatch:
    """Lay sequences on one axis.

    Args:
        rows: the sequences; one without a ``unit`` is a unit of its own.
        pairs: decided pairs ``(better, worse)`` as indices into ``rows``; both must share a unit.

    Raises:
        ValueError: no rows, differing columns, or a pair across units.
    """
    rows = list(rows)
    if not rows:
        raise ValueError("a flat batch needs at least one sequence")
    lengths = torch.tensor([len(row.ids) for row in rows])
    start_N1 = torch.cat([lengths.new_zeros(1), lengths.cumsum(0)])
    sequence_T = torch.repeat_interleave(torch.arange(len(rows)), lengths)
    position_T = torch.arange(int(lengths.sum())) - start_N1[sequence_T]
    prev_T = torch.where(position_T > 0, torch.arange(int(lengths.sum())) - 1, -1)
    taken = [row.unit for row in rows if row.unit is not None]
    free = max(taken, default=-1) + 1
    unit_N = [row.unit if row.unit is not None else free + i for i, row in enumerate(rows)]
    if any(unit_N[a] != unit_N[b] for a, b in pairs):
        raise ValueError("a pair joins sequences of different units: a micro-batch could split it")
    for row in rows:
        if row.columns.keys() != rows[0].columns.keys() or row.token_columns.keys() != rows[0].token_columns.keys():
            raise ValueError(f"sequence {row.id!r} has other columns than {rows[0].id!r}")
    columns: dict[str, Tensor] = {}
    for name in rows[0].columns:
        columns[name] = torch.tensor([row.columns[name] for row in rows])
    for name in rows[0].token_columns:
        columns[name] = torch.cat([torch.as_tensor(row.token_columns[name]) for row in rows])
    return FlatBatch(
        ids_T=torch.tensor([i for row in rows for i in row.ids], dtype=torch.long),
        position_T=position_T,
        prev_T=prev_T,
        act_T=torch.tensor([bool(a) for row in rows for a in row.act]),
        sequence_T=sequence_T,
        start_N1=start_N1,
        key_start_N1=start_N1,
        unit_N=torch.tensor(unit_N, dtype=torch.long),
        pairs_M2=torch.tensor(list(pairs), dtype=torch.long).reshape(-1, 2),
        ids_N=tuple(row.id for row in rows),
        columns=columns,
    )


def join(first: FlatBatch, second: FlatBatch) -> FlatBatch:
    """Two batches on one axis: ``first``'s sequences, then ``second``'s, units kept apart.

    Raises:
        ValueError: they have different columns.
    """
    if first.columns.keys() != second.columns.keys():
        raise ValueError(f"columns differ: {sorted(first.columns.keys() ^ second.columns.keys())}")
    tokens, sequences = first.tokens, first.sequences
    starts = torch.cat([first.start_N1, second.start_N1[1:] + tokens])
    return FlatBatch(
        ids_T=torch.cat([first.ids_T, second.ids_T]),
        position_T=torch.cat([first.position_T, second.position_T]),
        prev_T=torch.cat([first.prev_T, torch.where(second.prev_T >= 0, second.prev_T + tokens, -1)]),
        act_T=torch.cat([first.act_T, second.act_T]),
        sequence_T=torch.cat([first.sequence_T, second.sequence_T + sequences]),
        start_N1=starts,
        key_start_N1=starts,
        unit_N=torch.cat([first.unit_N, second.unit_N + int(first.unit_N.max()) + 1]),
        pairs_M2=torch.cat([first.pairs_M2, second.pairs_M2 + sequences]),
        ids_N=first.ids_N + second.ids_N,
        columns={name: torch.cat([value, second.columns[name]]) for name, value in first.columns.items()},
    )
