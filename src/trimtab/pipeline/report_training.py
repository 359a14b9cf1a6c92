"""The report's sections on supervised fine-tuning, reward models, and kinds of stage it does not know. Torch-free."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trimtab.pipeline.report_chart import calibration_chart, interval_chart
from trimtab.pipeline.report_curves import Chart, Curves, skipped
from trimtab.pipeline.report_files import StageFiles, listing, mapping, number
from trimtab.pipeline.report_page import Raw, badge, el, facts, missing, notes, percent, section, short, table

_GRADIENTS = ("policy", "critic", "reward")


def heading(stage: StageFiles, what: str, *body: Any) -> Raw:
    """A stage's section."""
    return section(stage.name, *body, anchor=f"stage-{stage.name}", note=f"{what} · {stage.status}")


def rates_and_norms() -> list[Chart]:
    """Gradient norms before clipping, and learning rates, of whatever groups the stage trains."""
    return [
        Chart("Gradient norm", "before clipping", {f"grad_norm/{name}": name for name in _GRADIENTS}, anchor=0),
        Chart("Learning rate", "", {f"lr/{name}": name for name in _GRADIENTS}, anchor=0),
    ]


def sft_section(stage: StageFiles) -> Raw:
    """Learning curve with the held-out loss."""
    curves = Curves(stage, by_version=False)
    charts = [
        Chart("Loss", "nats per token", {"loss/nll": "training minibatch", "heldout/nll": "held out"}),
        *rates_and_norms(),
    ]
    curves.drawn.add("loss")  # the sum of the parts that are drawn
    result = stage.metrics
    found = facts(
        (name, short(number(result[key])))
        for key, name in {
            "rows": "demonstrations",
            "tokens_learned": "tokens learned",
            "updates": "updates",
            "heldout_nll": "held-out NLL (nats per token)",
            "best_version": "best at update",
        }.items()
        if key in result
    )
    return heading(stage, "supervised fine-tuning", found, notes(skipped(stage)), curves.charts(charts), curves.rest())


def reward_section(stage: StageFiles) -> Raw:
    """Accuracy beside what simple rules get, by margin and by length; calibration; the learning curve."""
    curves = Curves(stage, by_version=False)
    charts = [
        Chart("Pair loss", "nats", {"loss/pair": "training minibatch", "heldout/loss": "held out"}, anchor=0),
        Chart("Accuracy", "", {"accuracy": "training minibatch", "heldout/accuracy": "held out"}, share=True),
        *rates_and_norms(),
    ]
    curves.drawn.add("loss")
    result = stage.metrics
    counts = facts(
        (name, short(number(result[key])))
        for key, name in {"rows": "comparisons", "pairs": "decided pairs", "updates": "updates"}.items()
        if key in result
    )
    heldout = mapping(result.get("heldout"))
    tied = listing(result.get("tied_rows"))
    warnings = [*skipped(stage), *([f"{len(tied)} comparisons in which everything is tied"] if tied else [])]
    body: list[Any] = [counts, notes(warnings)]
    body += _heldout(heldout) if heldout else [missing("accuracy on held-out comparisons: not measured (yet)")]
    return heading(stage, "reward model", *body, el("h3", "Training"), curves.charts(charts), curves.rest())


def _heldout(report: Mapping[str, Any]) -> list[Any]:
    accuracy = mapping(report.get("accuracy"))
    clears = report.get("clears_length") is True
    correlation = number(report.get("length_correlation"))
    error = number(mapping(report.get("calibration")).get("ece"))
    said = badge("above length", "good") if clears else badge("does not clear length", "bad")
    lead = el(
        "p",
        el("strong", f"{percent(number(accuracy.get('share')))} of held-out pairs ranked as people do"),
        f" ({_between(accuracy)}, {short(number(accuracy.get('n')))} pairs). ",
        said,
    )
    figures = [
        interval_chart(
            "Accuracy on held-out pairs", _rivals(report), x_label="dotted: a coin toss", reference=0.5, share=True
        ),
        interval_chart(
            "By how clear the judgement was",
            _binned(report, "by_margin", "margin"),
            x_label="dotted: a coin toss",
            reference=0.5,
            share=True,
        ),
        interval_chart(
            "By length: better minus worse answer",
            _binned(report, "by_length", "words"),
            x_label="dotted: a coin toss",
            reference=0.5,
            share=True,
        ),
        calibration_chart("Calibration", _bins(report)),
    ]
    more = facts(
        [
            ("expected calibration error", short(error)),
            ("correlation of score and length", short(correlation, sign=True)),
            ("held-out comparisons", short(number(report.get("comparisons")))),
            ("tied pairs (in no accuracy)", short(number(report.get("undecided")))),
        ]
    )
    return [lead, el("div", *[f for f in figures if f], class_="charts"), more]


def _rivals(report: Mapping[str, Any]) -> list[tuple[str, float, float | None, float | None, str]]:
    """The reward model and every baseline; a baseline may come without an interval."""
    entries = [("reward model", report.get("accuracy")), ("longer wins", report.get("longer_wins"))]
    entries += [("bag of words", report.get("bag_of_words"))]
    entries += [(str(name), value) for name, value in mapping(report.get("baselines")).items()]
    rows = []
    for name, entry in entries:
        found = mapping(entry) or {"share": entry}
        share = number(found.get("share"))
        if share is not None:
            rows.append((name, share, number(found.get("low")), number(found.get("high")), percent(share)))
    return rows


def _binned(report: Mapping[str, Any], key: str, unit: str) -> list[tuple[str, float, float | None, float | None, str]]:
    rows = []
    for entry in map(mapping, listing(report.get(key))):
        found = mapping(entry.get("accuracy"))
        share, low, high = number(found.get("share")), number(entry.get("low")), number(entry.get("high"))
        if share is not None:
            label = f"{unit} {short(low)} to {short(high)}"
            written = f"{percent(share)} of {short(number(found.get('n')))}"
            rows.append((label, share, number(found.get("low")), number(found.get("high")), written))
    return rows


def _bins(report: Mapping[str, Any]) -> list[tuple[float, float, int]]:
    found = []
    for entry in map(mapping, listing(mapping(report.get("calibration")).get("bins"))):
        sure, right, n = (number(entry.get(key)) for key in ("confidence", "accuracy", "n"))
        if sure is not None and right is not None and n:
            found.append((sure, right, int(n)))
    return found


def other_section(stage: StageFiles) -> Raw:
    """A stage of a kind that this report has no page for: its result and every metric."""
    curves = Curves(stage, by_version=False)
    plain = {key: value for key, value in stage.metrics.items() if not isinstance(value, Mapping | list)}
    rows = [[key, short(number(value)) if number(value) is not None else value] for key, value in plain.items()]
    result = table(["result", ""], rows) if rows else missing("no result (yet)")
    return heading(stage, stage.kind or "unknown kind", result, notes(skipped(stage)), curves.rest())


def _between(found: Mapping[str, Any]) -> str:
    return f"95 % interval {percent(number(found.get('low')))} to {percent(number(found.get('high')))}"
