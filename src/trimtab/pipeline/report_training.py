"""The report's sections on supervised fine-tuning and on kinds of stage it does not know. Torch-free."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trimtab.pipeline.report_curves import Chart, Curves, skipped
from trimtab.pipeline.report_files import StageFiles, number
from trimtab.pipeline.report_page import Raw, el, facts, missing, notes, section, short, table

_GRADIENTS = ("policy", "critic", "reward")


def heading(stage: StageFiles, what: str, *body: Any) -> Raw:
    """A stage's section; what made it fail stands first."""
    failed = None
    if stage.status == "failed":
        said = f"{stage.ended.get('error', 'error')}: {stage.ended.get('problem', '')}"
        fix = str(stage.ended.get("fix") or "")
        failed = el("div", el("p", el("strong", "Failed. "), said), el("p", fix) if fix else None, class_="failed")
    return section(stage.name, failed, *body, anchor=f"stage-{stage.name}", note=f"{what} · {stage.status}")


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
        Chart("Loss", "nats per token", {"loss/nll": "minibatch", "heldout/nll": "held out"}),
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


def other_section(stage: StageFiles) -> Raw:
    """A stage of a kind that this report has no page for: its result and every metric."""
    curves = Curves(stage, by_version=False)
    plain = {key: value for key, value in stage.metrics.items() if not isinstance(value, Mapping | list)}
    rows = [[key, short(number(value)) if number(value) is not None else value] for key, value in plain.items()]
    result = table(["result", ""], rows) if rows else missing("no result (yet)")
    return heading(stage, stage.kind or "unknown kind", result, notes(skipped(stage)), curves.rest())
