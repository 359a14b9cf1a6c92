"""Verdicts side by side, and runs against one another on the prompts that both were measured on."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from trimtab.evaluation.bootstrap import paired_difference
from trimtab.evaluation.text import words
from trimtab.pipeline.report_evaluation import COSTS, compared
from trimtab.pipeline.report_files import Row, RunFiles, StageFiles, listing, mapping, number
from trimtab.pipeline.report_page import Raw, badge, el, missing, notes, short, table
from trimtab.pipeline.report_shapes import interval_chart

_FEWEST = 8
"""Prompts in common below which no difference is shown."""
_ALIKE = ("max_new_tokens", "temperature")


def verdict_table(runs: Mapping[str, RunFiles]) -> list[Raw | None]:
    """Passed or not, gains with their intervals, and costs, run by run."""
    rows, gains = [], dict[str, list[Any]]()
    for name, run in runs.items():
        for stage in (stage for stage in run.stages if stage.kind == "evaluate"):
            result = stage.metrics
            for entry in map(mapping, listing(result.get("instruments"))):
                gains.setdefault(str(entry.get("name")), []).append(_gain(name, stage, runs, entry))
            rows.append([name, _sides(stage), _call(stage), *_costs(result)])
    if not rows:
        return [missing("no run has an evaluate stage")]
    head = ["run", "compared", "verdict", *(name.replace("_", "-").replace("kl", "KL") for name in COSTS)]
    charts = [
        interval_chart(
            f"{instrument}: candidate minus against, 95 %",
            [row for row in found if row],
            x_label="right of 0: better",
            reference=0.0,
        )
        for instrument, found in gains.items()
    ]
    said = el(
        "p", "Costs as compared with each run's own bounds; each verdict is about its own candidate.", class_="note"
    )
    return [table(head, rows), said, el("div", *[chart for chart in charts if chart], class_="charts")]


def _sides(stage: StageFiles) -> str:
    return " against ".join(str(stage.config.get(key, "?")) for key in ("candidate", "against"))


def _call(stage: StageFiles) -> Raw:
    if not stage.metrics:
        return badge(f"not decided ({stage.status})", "plain")
    passed = stage.metrics.get("passed") is True
    direction = str(stage.metrics.get("direction", ""))
    return badge(f"{'passed' if passed else 'NOT PASSED'}, {direction}", "good" if passed else "bad")


def _costs(result: Mapping[str, Any]) -> list[Any]:
    checks = {str(mapping(c).get("name")): mapping(c) for c in listing(result.get("checks"))}
    cells: list[Any] = []
    for name in COSTS:
        check = checks.get(name, {})
        value, bound = compared(name, number(check.get("value")), number(check.get("bound")))
        broken = badge("BROKEN", "bad") if check.get("holds") is False else None
        cells.append([value, " ", broken, el("div", bound, class_="note")] if check else "–")
    return cells


def _gain(name: str, stage: StageFiles, runs: Mapping[str, RunFiles], entry: Mapping[str, Any]) -> Any:
    several = sum(other.kind == "evaluate" for other in runs[name].stages) > 1
    found = mapping(entry.get("difference"))
    mean, low, high = (number(found.get(key)) for key in ("mean", "low", "high"))
    label = f"{name} {stage.name}" if several else name
    return None if mean is None else (label, mean, low, high, _interval(mean, low, high))


def _interval(mean: float, low: float | None, high: float | None) -> str:
    return f"{short(mean, sign=True)} [{short(low, sign=True)}, {short(high, sign=True)}]"


def paired_sections(runs: Mapping[str, RunFiles], places: Mapping[str, Path]) -> list[Raw | None]:
    """Each later run's candidates minus the first run's, on the prompts that both answered."""
    first, *others = runs
    parts: list[Raw | None] = []
    for other in others:
        both = [[stage for stage in runs[name].stages if stage.kind == "evaluate"] for name in (first, other)]
        for mine, theirs in zip(*both, strict=False):
            parts += _paired(first, other, mine, theirs, places)
        parts.append(_rankers(first, other, runs))
    return parts or [missing("no run has an evaluate stage")]


def _paired(
    first: str, other: str, mine: StageFiles, theirs: StageFiles, places: Mapping[str, Path]
) -> list[Raw | None]:
    title = el("h3", f"{other} minus {first}: candidates of {theirs.name}")
    ours, their_rows = _answers(mine, places[first]), _answers(theirs, places[other])
    common = [key for key in ours if key in their_rows]
    told = f"{len(common)} prompts in common ({len(ours)} in {first}, {len(their_rows)} in {other})."
    if len(common) < _FEWEST:
        return [title, el("p", told, " Too few to pair: other prompts, another seed, or another template.")]
    rows = []
    for instrument in _instruments(ours, their_rows):
        pairs = [(_score(their_rows[key], instrument), _score(ours[key], instrument)) for key in common]
        known = [(a, b) for a, b in pairs if a is not None and b is not None]
        if known:
            found = paired_difference([a for a, _ in known], [b for _, b in known], resamples=4000)
            rows.append((instrument, found.mean, found.low, found.high, _interval(found.mean, found.low, found.high)))
    lengths = [[len(words(str(mapping(side[key]).get("text", "")))) for key in common] for side in (their_rows, ours)]
    found = paired_difference(*lengths, resamples=4000)
    rows.append(("words per answer", found.mean, found.low, found.high, _interval(found.mean, found.low, found.high)))
    charts = [
        interval_chart(
            row[0], [(f"{other} − {first}", *row[1:])], x_label=f"right of 0: {other} has more", reference=0.0
        )
        for row in rows
    ]
    differing = [key for key in _ALIKE if mine.config.get(key) != theirs.config.get(key)]
    warned = [f"the two evaluations differ in {', '.join(differing)}"] if differing else []
    body = el("div", *[chart for chart in charts if chart], class_="charts")
    return [title, el("p", told, " Paired by prompt, 95 % bootstrap intervals."), notes(warned), body]


def _answers(stage: StageFiles, run_dir: Path) -> dict[tuple[Any, ...], Row]:
    """The candidate's answers by what identifies a prompt: its id and its tokens, else its id, text and source."""
    tokens = _prompt_tokens(run_dir / "stages" / stage.name / "answers-candidate.json")
    source = mapping(mapping(stage.manifest.get("inputs")).get("prompts")).get("sha256")
    found: dict[tuple[Any, ...], Row] = {}
    for row in stage.pairs:
        name = str(row.get("prompt_id"))
        same = tokens.get(name) if tokens else (str(row.get("prompt")), source)
        if same is not None:
            found[(name, same)] = mapping(row.get("candidate"))
    return found


def _prompt_tokens(file: Path) -> dict[str, tuple[str, ...]]:
    try:
        saved = mapping(json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError, RecursionError):
        return {}
    rows = map(mapping, listing(saved.get("answers")))
    return {str(row.get("prompt_id")): tuple(map(str, listing(row.get("prompt_ids")))) for row in rows}


def _instruments(*sides: Mapping[tuple[Any, ...], Row]) -> Iterable[str]:
    """Instruments that every side was scored with."""
    named = [set(mapping(row.get("scores"))) for side in sides for row in islice(side.values(), 1)]
    return sorted(set.intersection(*named)) if named else []


def _score(row: Row, instrument: str) -> float | None:
    return number(mapping(row.get("scores")).get(instrument))


def _rankers(first: str, other: str, runs: Mapping[str, RunFiles]) -> Raw | None:
    """Reward models on the same held-out comparisons: share of pairs ranked right, comparison by comparison."""
    shares = []
    for name in (first, other):
        stage = next((stage for stage in runs[name].stages if stage.kind == "reward" and stage.heldout), None)
        if stage is None:
            return None
        shares.append({_identity(row): share for row in stage.heldout if (share := _share(row)) is not None})
    common = [key for key in shares[0] if key in shares[1]]
    if len(common) < _FEWEST:
        return None
    found = paired_difference([shares[1][key] for key in common], [shares[0][key] for key in common], resamples=4000)
    said = f"Reward models on {len(common)} held-out comparisons in common, pairs ranked right, {other} − {first}: "
    return el("p", said, el("strong", _interval(found.mean, found.low, found.high)), ".")


def _identity(row: Row) -> tuple[str, ...]:
    """A comparison by its id, ranks and lengths: the same id may stand for other answers in another run."""
    return (str(row.get("id")), str(listing(row.get("ranks"))), str(listing(row.get("words"))))


def _share(row: Row) -> float | None:
    hits = []
    told = list(zip(map(number, listing(row.get("ranks"))), map(number, listing(row.get("scores"))), strict=False))
    for better, high in told:
        for worse, low in told:
            if better is not None and worse is not None and high is not None and low is not None and better < worse:
                hits.append(1.0 if high > low else 0.5 if high == low else 0.0)
    return sum(hits) / len(hits) if hits else None
