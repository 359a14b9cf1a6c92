"""The report's page on data: rows in = rows used + rows accounted for by name, dataset by dataset and stage by stage.
Torch-free."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from trimtab.pipeline.report_files import Row, RunFiles, StageFiles, listing, mapping, number
from trimtab.pipeline.report_page import Raw, badge, el, missing, notes, section, short, table

_MOST_LISTED = 20


def data_section(run: RunFiles) -> Raw:
    """Per dataset what became of every row of its source; per stage what became of every row it was handed."""
    parts: list[Any] = [_account(name, account) for name, account in run.accounts.items()]
    if not parts:
        parts = [missing("no account of the data was written (data/<name>.json)")]
    started = [stage for stage in run.stages if stage.status != "not started"]
    if started:
        parts += [el("h3", "What the stages took"), *_stages(started)]
    return section("Data", *parts, anchor="data")


def _stages(stages: Sequence[StageFiles]) -> list[Raw | None]:
    rows, listed = [], []
    for stage in stages:
        if stage.rows is None:
            rows.append([stage.name, _reads(stage), "–", "–", "–", "rows.json: not recorded"])
            continue
        for taken in stage.rows:
            name = " ".join(str(taken.get(key, "")) for key in ("data", "split", "purpose"))
            reasons = mapping(taken.get("left_out_by_reason"))
            why = [el("div", f"{short(number(count))} {reason}") for reason, count in reasons.items()]
            counts = [number(taken.get(key)) for key in ("rows_in", "used", "left_out")]
            rows.append([stage.name, name, *map(short, counts), [balance(*counts), *why]])
            listed.append(_left_out(listing(taken.get("left_out_rows")), f"{stage.name}, {name}"))
    head = ["stage", "rows", "in", "used", "left out", "accounted for"]
    return [table(head, rows, numeric=(2, 3, 4)), *listed]


def _reads(stage: StageFiles) -> str:
    inputs = [mapping(value).get("rows") for value in mapping(stage.manifest.get("inputs")).values()]
    return ", ".join(str(name) for name in inputs if name)


def balance(rows_in: float | None, used: float | None, left: float | None) -> Raw:
    """Whether rows in = used + left out."""
    if rows_in is None:
        return badge("not counted", "plain")
    total = (used or 0.0) + (left or 0.0)
    return badge("adds up", "good") if total == rows_in else badge(f"does not add up: {short(total)}", "bad")


def _account(name: str, account: Mapping[str, Any]) -> Raw:
    used, reasons = mapping(account.get("used")), mapping(account.get("left_out_by_reason"))
    rows_in, left = number(account.get("rows_in")), number(account.get("left_out")) or 0.0
    total = sum(number(value) or 0.0 for value in used.values())
    rows = [["rows read", short(rows_in)]]
    rows += [[f"used: {where}", short(number(count))] for where, count in used.items()]
    rows += [[f"left out: {reason}", short(number(count))] for reason, count in reasons.items()]
    remarks = [f"{what}: {_told(count)}" for what, count in mapping(account.get("notes")).items()]
    return el(
        "div",
        el("h3", name, " ", balance(rows_in, total, left)),
        el("p", ", ".join(map(str, listing(account.get("source")))), " ", str(account.get("detected") or "")),
        el("div", table(["", "rows"], rows, numeric=(1,)), _records(account), class_="two"),
        notes(remarks),
        _left_out(listing(account.get("left_out_rows")), name),
    )


def _told(count: Any) -> str:
    value = number(count)
    return short(value) if value is not None else str(count)


def _records(account: Mapping[str, Any]) -> Raw | None:
    records = mapping(account.get("records"))
    rows = [[kind, short(number(count))] for kind, count in records.items()]
    return table(["records made", ""], rows, numeric=(1,)) if rows else None


def _left_out(listed: list[Row], whose: str) -> Raw | None:
    if not listed:
        return None
    items = []
    for row in map(mapping, listed[:_MOST_LISTED]):
        place = ":".join(str(row[key]) for key in ("file", "line", "key") if row.get(key) not in (None, ""))
        items.append(el("li", f"{place}: {row.get('reason', '')}"))
    more = el("p", f"and {len(listed) - _MOST_LISTED} more") if len(listed) > _MOST_LISTED else None
    return el("details", el("summary", f"{whose}: {len(listed)} rows left out"), el("ul", *items), more)
