"""``trimtab data``: what a recipe's datasets hold, how they were understood, and what a template makes of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from trimtab.data.load import LoadedData, load
from trimtab.data.show import render_all
from trimtab.data.template import Renderer
from trimtab.pipeline.graph import Recipe
from trimtab.pipeline.overlaps import overlaps
from trimtab.records import Rating

Say = Callable[[str], None]
LISTED = 10
"""Rows that are named one by one."""


def open_datasets(recipe: Recipe, names: Iterable[str], say: Say) -> dict[str, LoadedData]:
    """Datasets of a recipe by name, each read once, the parts of mixtures too; what was detected is said."""
    loaded: dict[str, LoadedData] = {}

    def one(name: str) -> LoadedData:
        if name not in loaded:
            loaded[name] = load(name, recipe.data[name], recipe.seed, say=say, others=one)
        return loaded[name]

    for name in names:
        one(name)
    return loaded


def say_accounts(datasets: dict[str, LoadedData], say: Say) -> None:
    """Where the rows of each dataset went, and which were left out and why."""
    for name, data in datasets.items():
        account = data.account()
        used = ", ".join(f"{count} {where}" for where, count in account["used"].items())
        say(f"\n{name}: {account['rows_in']} rows in = {used} + {account['left_out']} left out")
        for reason, count in account["left_out_by_reason"].items():
            say(f"  {count} left out: {reason}")
        listed = account["left_out_rows"]
        for row in listed[:LISTED]:
            place = ":".join(str(row[key]) for key in ("file", "line", "key") if key in row)
            say(f"    {place}: {row['reason']}")
        if len(listed) > LISTED:
            say(f"    and {len(listed) - LISTED} more")


def say_overlaps(references: Sequence[str], datasets: dict[str, LoadedData], say: Say) -> None:
    """What held-out rows of every reference have in common with the training rows of each."""
    for held, trained, found in overlaps(references, datasets):
        say(f"held-out {held} against training {trained}: {found.said()}")


def say_template(reference: str, rows: Sequence[Any], renderer: Renderer, say: Say) -> None:
    """What the template makes of all rows, and which it refuses."""
    found = render_all(renderer, [row for row in rows if not isinstance(row, Rating)])
    taken = found.rows - sum(len(ids) for ids in found.refused.values())
    say(f"template on {reference}: {taken} of {found.rows} rows, {found.tokens} tokens, {found.trained} trained")
    for reason, ids in found.refused.items():
        more = f" and {len(ids) - LISTED} more" if len(ids) > LISTED else ""
        say(f"  {len(ids)} refused: {reason}: {', '.join(ids[:LISTED])}{more}")
