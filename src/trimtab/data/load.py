"""Datasets by the name a recipe gives them: detected, split, counted. Torch-free."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from trimtab.data.account import Account, LeftOut, settle_bad_rows
from trimtab.data.columns import Record, Shape, build, check_mapping, detect, rename
from trimtab.data.config import DataConfig, Fail, OnBadRows
from trimtab.data.files import Raw, find_files, read_rows
from trimtab.data.films import FILMS, films
from trimtab.data.keyed import keyed_order
from trimtab.data.split import is_held_out, prompt_key
from trimtab.data.turns import BadValue
from trimtab.errors import DataError, Where
from trimtab.records import Comparison, Demonstration, Feedback, Prompt
from trimtab.schema import did_you_mean

SPLITS = ("train", "heldout")
DEFAULT_HELDOUT = 0.05
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
        """Records of one kind and split.

        Raises:
            DataError: this dataset has none of that kind, or the split is none.
        """
        kinds = sorted({k for k, _ in self.records})
        if kind not in kinds:
            known = ", ".join(f"{self.name}.{k}" for k in kinds)
            raise DataError(f"'{self.name}' has no {kind or 'kind'}", fix=f"use {known}")
        if split not in SPLITS:
            raise DataError(f"no split is called '{split}'", fix=did_you_mean(split, SPLITS))
        return list(self.records.get((kind, split), []))

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
) -> LoadedData:
    """Read a dataset.

    Args:
        name: its name in the recipe.
        config: its keys.
        seed: the recipe's; decides order and split.
        base: folder that relative paths start from; None = the current one.
        say: told in one line what was detected and how many rows went where.

    Raises:
        DataError: no such file, columns that mean nothing, bad rows beyond ``on_bad_rows``.
    """
    data = _built_in(name, config, seed) if config.source in BUILT_IN else _from_files(name, config, seed, base)
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


def _from_files(name: str, config: DataConfig, seed: int, base: Path | None) -> LoadedData:
    paths = _find(config, base)
    raws = [raw for path in paths for raw in read_rows(path)]
    if not raws:
        raise DataError("no rows", where=Where(str(paths[0])), fix="check the file")
    check_mapping(config.columns, list(dict.fromkeys(column for raw in raws for column in raw.values)))
    account = Account(source=[str(path) for path in paths], rows_in=len(raws))
    ours = list(dict.fromkeys(column for raw in raws for column in rename(raw, config.columns)))
    try:
        shape = detect(ours, config.kind)
    except DataError as error:
        raise DataError(error.problem, where=Where(account.source[0]), fix=error.fix) from None
    account.detected = _announce(shape, ours)
    good, bad = _records(raws, _short_names(paths), shape, config, account)
    account.left_out += settle_bad_rows(bad, len(raws), config.on_bad_rows)
    rows = keyed_order(good, lambda row: row[0].id, "order", seed)
    if not rows:
        raise DataError(f"none of {len(raws)} rows can be used: {bad[0].problem}", where=bad[0].where, fix=bad[0].fix)
    limit = len(rows) if config.limit is None else config.limit
    if limit < 1:
        raise DataError(f"limit is {limit}", where=Where(key="limit"), fix="use at least one row, or leave it out")
    account.left_out += [LeftOut(where, "beyond the limit") for _, where in rows[limit:]]
    records = _split([record for record, _ in rows[:limit]], shape, config, seed, account)
    places = {record.id: where for record, where in rows[:limit]}
    return LoadedData(name, records, account, places, config.on_bad_rows)


def _find(config: DataConfig, base: Path | None) -> list[Path]:
    try:
        return find_files(config.source, base)
    except DataError as error:
        if not isinstance(config.source, str) or Path(config.source).suffix:
            raise
        known = ", ".join(BUILT_IN)
        raise DataError(error.problem, fix=f"built-in sources: {known}; anything else is a file or a pattern") from None


def _short_names(paths: list[Path]) -> dict[str, str]:
    """File -> its name, numbered if two share it. Ids are made of it, so they must not depend on the folder."""
    names = [path.name for path in paths]
    return {
        str(path): path.name if names.count(path.name) == 1 else f"{i}/{path.name}" for i, path in enumerate(paths, 1)
    }


def _announce(shape: Shape, names: list[str]) -> str:
    read = [name for name in names if name in (*shape.needs, *shape.may, "id")]
    rest = [name for name in names if name not in read]
    others = f" (other columns, {'kept for reward functions' if shape.keeps else 'not used'}: {', '.join(rest)})"
    return f"read as {shape.said} from {', '.join(read)}" + (others if rest else "")


def _records(
    raws: list[Raw], short: Mapping[str, str], shape: Shape, config: DataConfig, account: Account
) -> tuple[list[tuple[Record, Where]], list[DataError]]:
    """Every row as a record, or as an error; the same id twice is one too, since ids name random streams."""
    good: list[tuple[Record, Where]] = []
    bad: list[DataError] = []
    taken: dict[str, Where] = {}
    for raw in raws:
        where, odd = raw.where, []
        try:
            if raw.problem:
                raise BadValue(raw.where.key, raw.problem, "repair the line, or leave it out")
            values = rename(raw, config.columns)
            given = values.get("id")
            row_id = str(given) if given is not None else f"{short[where.file]}:{where.line or where.key}"
            if row_id in taken:
                raise BadValue("id", f"the id '{row_id}' was used before, at {taken[row_id]}", "make ids unique")
            record = build(shape, row_id, values, odd.append)
        except BadValue as error:
            key = ".".join(part for part in (where.key, config.columns.get(error.key, error.key)) if part)
            bad.append(DataError(error.problem, where=replace(where, key=key), fix=error.fix))
            continue
        taken[row_id] = where
        good.append((record, where))
        for what in dict.fromkeys(odd):
            account.note(what)
    return good, bad


def _split(
    rows: list[Record], shape: Shape, config: DataConfig, seed: int, account: Account
) -> dict[tuple[str, str], list[Any]]:
    share = DEFAULT_HELDOUT if config.heldout is None else config.heldout
    if not 0 <= share <= 1:
        raise DataError(f"heldout is {share}, but it is a share", where=Where(key="heldout"), fix="write 0.05 for 5 %")
    keys = [prompt_key(row) for row in rows]
    again = len(keys) - len(set(keys))
    if again and len(set(keys)) == 1:
        account.detected += "; every row has the same prompt, so the split is by row"
        keys = [row.id for row in rows]
    else:
        account.note("rows with a prompt of an earlier row (all on the same side of the split)", again)
    contents = Counter(_content(row) for row in rows)
    account.note("rows that repeat an earlier row word for word", len(rows) - len(contents))
    sides: dict[str, list[Any]] = {split: [] for split in SPLITS}
    for key, row in zip(keys, rows, strict=True):
        sides["heldout" if is_held_out(key, seed, share) else "train"].append(row)
    account.used = {split: len(side) for split, side in sides.items()}
    return {(shape.kind, split): side for split, side in sides.items()}


def _content(row: Record) -> str:
    """Everything of a row but its id."""
    inner = replace(row, id="") if isinstance(row, Demonstration | Prompt) else _without_ids(row)
    return repr(inner)


def _without_ids(row: Comparison | Feedback) -> Comparison | Feedback:
    return replace(row, id="", prompt=replace(row.prompt, id=""))
