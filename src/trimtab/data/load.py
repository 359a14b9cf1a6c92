"""Datasets by the name a recipe gives them: detected, split, counted. Torch-free."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from trimtab.data.account import Account
from trimtab.data.config import DataConfig, Fail, OnBadRows
from trimtab.data.derive import DERIVED, derive
from trimtab.data.films import FILMS, films
from trimtab.data.mix import mix
from trimtab.data.read import read_source
from trimtab.data.split import SPLITS
from trimtab.errors import DataError, Where
from trimtab.schema import did_you_mean

BUILT_IN = (FILMS,)


@dataclass(frozen=True)
class LoadedData:
    """A dataset in memory (``train.stage.Dataset``).

    Attributes:
        name: its name in the recipe.
        records: ``(kind, split)`` -> records in their fixed order.
        accounted: what happened to every row.
        places: a record's id -> where its row stands, for messages of those who refuse it later.
        on_bad_rows: what the recipe says about bad rows; stages apply it to rows that a template refuses.
    """

    name: str
    records: Mapping[tuple[str, str], list[Any]]
    accounted: Account
    places: Mapping[str, Where] = field(default_factory=dict[str, Where])
    on_bad_rows: OnBadRows = field(default_factory=Fail)

    def rows(self, kind: str, split: str = "train") -> list[Any]:
        """Records of one kind and split. Prompts and demonstrations are also made of comparisons and the like.

        Raises:
            DataError: this dataset has none of that kind, or the split is none.
        """
        kinds = sorted({k for k, _ in self.records})
        if split not in SPLITS:
            raise DataError(f"no split is called '{split}'", fix=did_you_mean(split, SPLITS))
        if kind in kinds:
            return list(self.records.get((kind, split), []))
        for source in kinds:
            if kind in DERIVED.get(source, ()):
                return derive(self.records.get((source, split), []), kind)
        known = ", ".join(f"{self.name}.{k}" for k in kinds)
        raise DataError(f"'{self.name}' has no {kind or 'kind'}", fix=f"use {known}")

    def account(self) -> Mapping[str, Any]:
        """See ``data.account.Account``."""
        return self.accounted.as_json()


def load(
    name: str,
    config: DataConfig,
    seed: int,
    *,
    base: Path | None = None,
    say: Callable[[str], None] | None = None,
    others: Callable[[str], LoadedData] | None = None,
) -> LoadedData:
    """Read a dataset.

    Args:
        name: its name in the recipe.
        config: its keys.
        seed: the recipe's; decides order, split and the sides of comparisons.
        base: folder that relative paths start from; None = the current one.
        say: told in one line what was detected and how many rows went where.
        others: name of another dataset -> that dataset; a mixture is made of them.

    Raises:
        DataError: no such file, columns that mean nothing, bad rows beyond ``on_bad_rows``.
    """
    if (config.source is None) == (not config.mix):
        both = "both source and mix" if config.mix else "neither source nor mix"
        where = Where(key=f"data.{name}")
        raise DataError(f"the dataset has {both}", where=where, fix="give one of them, as in source: rows.jsonl")
    if config.mix:
        if others is None:
            raise DataError("a mixture needs its parts", where=Where(key=f"data.{name}.mix"), fix="pass others")
        records, account, places = mix(name, config, others)
        data = LoadedData(name, records, account, places, config.on_bad_rows)
    elif config.source in BUILT_IN:
        data = _built_in(name, config, seed)
    else:
        records, account, places = read_source(config, seed, base, BUILT_IN)
        data = LoadedData(name, records, account, places, config.on_bad_rows)
    data.accounted.kinds = {f"{kind}.{split}": len(rows) for (kind, split), rows in data.records.items()}
    data.accounted.check()
    if say is not None:
        say(summary(data))
    return data


def summary(data: LoadedData) -> str:
    """One line: what was read, what it was taken for, how much of it there is."""
    account = data.accounted
    records = ", ".join(f"{count} {kind}" for kind, count in account.kinds.items())
    left = f"; {len(account.left_out)} left out" if account.left_out else ""
    odd = "".join(f"; {count} {what}" for what, count in account.notes.items())
    return f"data {data.name}: {account.rows_in} rows, {account.detected}: {records}{left}{odd}"


def _built_in(name: str, config: DataConfig, seed: int) -> LoadedData:
    for key in fields(DataConfig):
        if key.name != "source" and getattr(config, key.name) != getattr(DataConfig(FILMS), key.name):
            raise DataError(
                f"source {config.source} reads no key '{key.name}'",
                where=Where(key=f"data.{name}.{key.name}"),
                fix="leave it out; its splits are fixed",
            )
    return LoadedData(name, *films(seed))
