"""``report.html``: one page about a run, made from its directory alone. Self-contained, no scripts, torch-free.

It can be written at any time, of a finished, unfinished or damaged run: what is missing is shown as missing. The same
directory gives the same bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trimtab.pipeline.report_evaluation import evaluation_section, verdict_section
from trimtab.pipeline.report_files import RunFiles, StageFiles, clock, listing, mapping, number, read_run, seconds_of
from trimtab.pipeline.report_page import Raw, badge, duration, el, facts, missing, notes, page, section, short, table
from trimtab.pipeline.report_ppo import ppo_section
from trimtab.pipeline.report_training import other_section, reward_section, sft_section
from trimtab.runtime.files import write_atomic

_SECTIONS = {"sft": sft_section, "reward": reward_section, "ppo": ppo_section, "evaluate": evaluation_section}
_MOST_LISTED = 20


def write(run_dir: str | Path) -> Path:
    """Write ``report.html`` into a run directory, atomically; returns its path."""
    path = Path(run_dir) / "report.html"
    write_atomic(path, render(read_run(Path(run_dir))))
    return path


def render(run: RunFiles) -> str:
    """The report's HTML."""
    body = [
        _head(run),
        *verdict_section([stage for stage in run.stages if stage.kind == "evaluate"]),
        _pipeline(run),
        *[_SECTIONS.get(stage.kind, other_section)(stage) for stage in run.stages if stage.status != "not started"],
        _data(run),
        _settings(run),
        el("footer", "Made by Trimtab from the files of this run; nothing on this page is loaded from elsewhere."),
    ]
    return page(f"{run.name} · Trimtab", body)


def _head(run: RunFiles) -> Raw:
    done = sum(stage.status == "finished" for stage in run.stages)
    times = [clock(event.get("time")) for event in run.events]
    given = [("stages finished", f"{done} of {len(run.stages)}"), ("seed", run.seed or "–")]
    if times:
        given += [("first launched", times[0]), ("last event", times[-1])]
    links = [("outcome", "outcome"), ("pipeline", "pipeline")]
    links += [(stage.name, f"stage-{stage.name}") for stage in run.stages if stage.status != "not started"]
    links += [("data", "data"), ("settings", "settings")]
    return el(
        "header",
        el("h1", run.name),
        facts(given),
        notes(run.problems),
        el("nav", *[el("a", name, href=f"#{anchor}") for name, anchor in links]),
    )


def _pipeline(run: RunFiles) -> Raw:
    """What ran, for how long, on what."""
    if not run.stages:
        return section(
            "Pipeline", missing("no stage is named in recipe.yaml, and none has a folder"), anchor="pipeline"
        )
    rows = []
    for stage in run.stages:
        mood = {"finished": "good", "no manifest": "bad"}.get(stage.status, "plain")
        seconds, unknown = seconds_of(run.events, stage.name)
        took = f"≥ {duration(seconds)}" if unknown and seconds is not None else duration(seconds)
        name = el("a", stage.name, href=f"#stage-{stage.name}") if stage.status != "not started" else stage.name
        rows.append([name, stage.kind, badge(stage.status, mood), took, _reads(stage), " ".join(stage.lines[-1:])])
    head = ["stage", "kind", "status", "time", "reads", "result"]
    return section("Pipeline", _attention(run), table(head, rows, numeric=(3,)), anchor="pipeline")


def _reads(stage: StageFiles) -> str:
    """Inputs by name: another stage, rows of a dataset, a model."""
    found = []
    for key, value in mapping(stage.manifest.get("inputs")).items():
        entry = mapping(value)
        name = next((entry[k] for k in ("stage", "rows", "load") if entry.get(k)), value)
        found.append(f"{key}: {name if not isinstance(name, Mapping) else ''}")
    return ", ".join(found)


def _attention(run: RunFiles) -> Raw | None:
    """Interruptions, resumptions and rounding that differs: what makes this more than one smooth run."""
    found = []
    stops = [event for event in run.events if event.get("event") == "interrupted"]
    launches = [event for event in run.events if event.get("event") == "launched"]
    if len(launches) > 1:
        found.append(f"launched {len(launches)} times")
    found += [f"interrupted {clock(event.get('time'))}: {event.get('reason', '')}" for event in stops[-3:]]
    inexact = [stage.name for stage in run.stages if stage.manifest.get("inexact")]
    if inexact:
        found.append(f"continued on another machine or with other versions (--inexact): {', '.join(inexact)}")
    for stage in run.stages:
        resumed = sum(event.get("event") == "resumed" for event in stage.events)
        if resumed:
            found.append(f"{stage.name}: resumed from a checkpoint ({resumed}×)")
    return notes(found)


def _data(run: RunFiles) -> Raw:
    """Rows in = rows used + rows left out by reason, per dataset; and what each stage took of them."""
    parts: list[Any] = [_account(name, account) for name, account in run.accounts.items()]
    if not parts:
        parts = [missing("no account of the data was written (data/<name>.json)")]
    rows = []
    for stage in run.stages:
        read = [
            mapping(v).get("rows") for v in mapping(stage.manifest.get("inputs")).values() if mapping(v).get("rows")
        ]
        if read:
            rows.append([stage.name, ", ".join(map(str, read)), _taken(stage)])
    used = [el("h3", "What the stages took"), table(["stage", "rows", "counts"], rows)] if rows else []
    return section("Data", *parts, *used, anchor="data")


def _taken(stage: StageFiles) -> str:
    keys = ("rows", "rankings", "pairs", "prompts_used")
    counts = [f"{key.replace('_', ' ')} {short(number(stage.metrics[key]))}" for key in keys if key in stage.metrics]
    prompts = mapping(stage.metrics.get("prompts"))
    counts += [f"prompts {key.replace('_', ' ')} {short(number(value))}" for key, value in prompts.items()]
    tied = listing(stage.metrics.get("tied_rows"))
    return ", ".join(counts + ([f"all tied {len(tied)}"] if tied else [])) or "–"


def _account(name: str, account: Mapping[str, Any]) -> Raw:
    used, reasons = mapping(account.get("used")), mapping(account.get("left_out_by_reason"))
    rows_in, left = number(account.get("rows_in")), number(account.get("left_out")) or 0.0
    total = sum(number(value) or 0.0 for value in used.values()) + left
    balanced = rows_in is not None and rows_in == total
    rows = [["rows read", short(rows_in)]]
    rows += [[f"used: {where}", short(number(count))] for where, count in used.items()]
    rows += [[f"left out: {reason}", short(number(count))] for reason, count in reasons.items()]
    sums = badge("adds up", "good") if balanced else badge(f"does not add up: {short(total)} accounted for", "bad")
    listed = listing(account.get("left_out_rows"))
    remarks = [f"{what}: {short(number(count))}" for what, count in mapping(account.get("notes")).items()]
    return el(
        "div",
        el("h3", name, " ", sums),
        el("p", ", ".join(map(str, listing(account.get("source")))), " ", str(account.get("detected") or "")),
        el("div", table(["", "rows"], rows, numeric=(1,)), _records(account), class_="two"),
        notes(remarks),
        _left_out(listed),
    )


def _records(account: Mapping[str, Any]) -> Raw | None:
    records = mapping(account.get("records"))
    rows = [[kind, short(number(count))] for kind, count in records.items()]
    return table(["records made", ""], rows, numeric=(1,)) if rows else None


def _left_out(listed: list[Any]) -> Raw | None:
    if not listed:
        return None
    items = []
    for row in map(mapping, listed[:_MOST_LISTED]):
        place = ":".join(str(row[key]) for key in ("file", "line", "key") if row.get(key) not in (None, ""))
        items.append(el("li", f"{place}: {row.get('reason', '')}"))
    more = el("p", f"and {len(listed) - _MOST_LISTED} more") if len(listed) > _MOST_LISTED else None
    return el("details", el("summary", f"{len(listed)} rows left out"), el("ul", *items), more)


def _settings(run: RunFiles) -> Raw:
    """The resolved recipe, and where it ran."""
    where = [[key, value] for key, value in run.environment.items()]
    recipe = el("pre", run.recipe) if run.recipe else missing("recipe.yaml is missing")
    return section(
        "Settings",
        el("details", el("summary", "recipe.yaml, every key written out"), recipe),
        el("details", el("summary", "machine and versions"), table(["", ""], where))
        if where
        else missing("machine and versions: manifest.json is missing"),
        anchor="settings",
    )
