"""A mixture of datasets: rows interleaved so that every beginning of it holds the datasets in about their weights.

The order is a function of the weights and of the parts' own orders, which come from the seed: the same recipe gives the
same rows in the same order on every start. Without ``limit`` the mixture is as long as the weights allow without any
row twice; with a larger ``limit`` a short part starts again from its beginning, and every row taken again is counted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

from trimtab.data.account import Account, LeftOut
from trimtab.data.config import DataConfig
from trimtab.data.split import SPLITS, prompt_key
from trimtab.errors import DataError, Where
from trimtab.records import Rating

Records = dict[tuple[str, str], list[Any]]


class Part(Protocol):
    """A loaded dataset, as far as a mixture reads it."""

    @property
    def records(self) -> Mapping[tuple[str, str], list[Any]]: ...

    @property
    def places(self) -> Mapping[str, Where]: ...

    def rows(self, kind: str, split: str = "train") -> list[Any]: ...


def mix(name: str, config: DataConfig, load: Callable[[str], Part]) -> tuple[Records, Account, dict[str, Where]]:
    """Records by kind and split, what happened to every row of every part, and where each record's row stands.

    Args:
        name: of the mixture, for messages.
        config: with ``mix``, and perhaps ``kind``, ``limit`` and ``on_bad_rows`` (for rows that a template refuses).
        load: name of a part -> the part.

    Raises:
        DataError: a weight is not above 0, a key means nothing for a mixture, or the parts share no kind.
    """
    _refuse_keys(name, config)
    parts = {part: load(part) for part in config.mix}
    kind = config.kind or _common_kind(name, parts)
    places: dict[str, Where] = {}
    account = Account(source=list(config.mix))
    offered = {split: {part: _named(part, data, kind, split, places) for part, data in parts.items()}
               for split in SPLITS}  # fmt: skip
    account.rows_in = sum(len(rows) for split in SPLITS for rows in offered[split].values())
    offered["train"] = _without_heldout(offered, account, places)
    records: Records = {}
    for split in SPLITS:
        limit = config.limit if split == "train" else None
        drawn = draw({part: len(rows) for part, rows in offered[split].items()}, config.mix, limit)
        records[kind, split] = _rows(offered[split], drawn, split, account, places)
    total = sum(config.mix.values())
    shares = ", ".join(f"{part} {weight / total:.1%}" for part, weight in config.mix.items())
    account.detected = f"a mixture of {shares}"
    if not records[kind, "train"]:
        raise DataError("the mixture is empty", where=Where(key=f"data.{name}.mix"), fix="give every part rows")
    return records, account, places


def draw(sizes: Mapping[str, int], weights: Mapping[str, float], limit: int | None = None) -> list[tuple[str, int]]:
    """``(part, its n-th draw)`` for every place of the mixture: always the part that is most behind its weight.

    Args:
        sizes: part -> rows that it has; a part without rows is left out.
        weights: part -> weight, above 0.
        limit: how many places; None = as many as there are before a part would have to repeat a row.
    """
    total = sum(weights[part] for part, size in sizes.items() if size)
    shares = {part: weights[part] / total for part, size in sizes.items() if size}
    taken = dict.fromkeys(shares, 0)
    drawn: list[tuple[str, int]] = []
    while shares and (limit is None or len(drawn) < limit):
        # Ties go to the first part of the recipe, so the order depends on nothing else.
        part = max(shares, key=lambda p: shares[p] * (len(drawn) + 1) - taken[p])
        if limit is None and taken[part] == sizes[part]:
            break
        drawn.append((part, taken[part]))
        taken[part] += 1
    return drawn


def _refuse_keys(name: str, config: DataConfig) -> None:
    for part, weight in config.mix.items():
        if not weight > 0:
            where = Where(key=f"data.{name}.mix.{part}")
            raise DataError(f"the weight {weight:g} takes no rows", where=where, fix="write a number above 0")
    plain = DataConfig(mix=config.mix)
    for key in ("format", "columns", "duplicates", "heldout"):
        if getattr(config, key) != getattr(plain, key):
            where = Where(key=f"data.{name}.{key}")
            raise DataError(f"a mixture reads no key '{key}'", where=where, fix="set it in the datasets of the mixture")


def _common_kind(name: str, parts: Mapping[str, Part]) -> str:
    kinds = [{kind for kind, _ in part.records} for part in parts.values()]
    shared = sorted(set.intersection(*kinds))
    if len(shared) == 1:
        return shared[0]
    found = "; ".join(f"{part}: {', '.join(sorted(k))}" for part, k in zip(parts, kinds, strict=True))
    what = "no kind in common" if not shared else f"{', '.join(shared)} in common"
    raise DataError(f"the parts have {what} ({found})", where=Where(key=f"data.{name}"), fix="say which with kind")


def _named(part: str, data: Part, kind: str, split: str, places: dict[str, Where]) -> list[Any]:
    """A part's rows under ids that no other part can have."""
    rows = []
    for row in data.rows(kind, split):
        made = replace(row, id=f"{part}/{row.id}")
        places[made.id] = data.places.get(row.id, Where(f"{part} {row.id}"))
        rows.append(made)
    return rows


def _without_heldout(
    offered: Mapping[str, Mapping[str, list[Any]]], account: Account, places: Mapping[str, Where]
) -> dict[str, list[Any]]:
    """Training rows whose prompt no *other* part holds out. (A part's own split may be by row: one prompt for all.)"""
    held = {part: {_prompt(row) for row in rows} for part, rows in offered["heldout"].items()}
    kept: dict[str, list[Any]] = {}
    for part, rows in offered["train"].items():
        others: set[str] = set().union(*(keys for other, keys in held.items() if other != part)) - held[part]
        kept[part] = [row for row in rows if _prompt(row) not in others]
        for row in rows:
            if _prompt(row) in others:
                account.left_out.append(LeftOut(places[row.id], "its prompt is held out by another part"))
    return kept


def _prompt(row: Any) -> str:
    return row.text if isinstance(row, Rating) else prompt_key(row)


def _rows(
    offered: Mapping[str, Sequence[Any]],
    drawn: Sequence[tuple[str, int]],
    split: str,
    account: Account,
    places: dict[str, Where],
) -> list[Any]:
    made: list[Any] = []
    for part, turn in drawn:
        rows = offered[part]
        row = rows[turn % len(rows)]
        if turn >= len(rows):
            again = replace(row, id=f"{row.id}#{turn // len(rows) + 1}")
            places[again.id] = places[row.id]
            row = again
        made.append(row)
    for part, rows in offered.items():
        count = sum(1 for one, _ in drawn if one == part)
        used = min(count, len(rows))
        account.used[f"{split} of {part}"] = used
        account.note(f"rows of {part} taken again in {split}", count - used)
        account.left_out += [LeftOut(places[row.id], f"beyond the weight of {part}") for row in rows[used:]]
    return made
