"""The report's section on PPO: what was gained, how far the policy went, whether learning was healthy. Torch-free."""

from __future__ import annotations

from collections.abc import Sequence

from trimtab.pipeline.report_chart import Series, line_chart
from trimtab.pipeline.report_curves import Chart, Curves, last, skipped
from trimtab.pipeline.report_files import Row, StageFiles, listing, mapping, number
from trimtab.pipeline.report_page import Raw, el, facts, missing, notes, percent, short
from trimtab.pipeline.report_samples import versions_side_by_side
from trimtab.pipeline.report_training import heading, rates_and_norms

_MANY_TRUNCATED = 0.3
"""Share of truncated answers above which the design asks for a warning."""


def ppo_section(stage: StageFiles) -> Raw:
    """Curves over rollouts consumed, in three groups, then samples."""
    curves = Curves(stage, by_version=True)
    gained = [_scores(curves), curves.chart(_REWARD), *map(curves.chart, _DISTANCE), _frontier(stage)]
    learning = [curves.chart(chart) for chart in (*_LEARNING, *rates_and_norms(), *_parity(stage))]
    curves.drawn.update(("loss", "updates", "pretraining"))
    return heading(
        stage,
        "PPO",
        _counts(stage),
        notes(warnings(stage)),
        el("h3", "What changed"),
        _grid(gained),
        el("h3", "How it learned"),
        _grid(learning),
        curves.rest(),
        el("h3", "The same prompts at several versions"),
        versions_side_by_side(stage.samples),
    )


def _grid(charts: Sequence[Raw | None]) -> Raw:
    made = [chart for chart in charts if chart is not None]
    return el("div", *made, class_="charts") if made else missing("nothing was written (yet)")


_REWARD = Chart("Reward after shaping", "mean per answer", {"reward/mean": "reward"})
_DISTANCE = (
    Chart("KL to the reference", "nats per answer, k1", {"kl/reference_k1": "KL (k1)"}, anchor=0),
    Chart("Answer length", "tokens, mean", {"length/mean": "length"}),
    Chart("Truncated answers", "", {"truncated": "truncated"}, anchor=0, share=True),
    Chart("Entropy", "nats per token", {"entropy": "entropy"}),
    Chart(
        "Perplexity of answers", "", {"perplexity": "under the policy", "perplexity/reference": "under the reference"}
    ),
)
_LEARNING = (
    Chart(
        "Clipped",
        "",
        {
            "clip_fraction/policy": "ratio (of tokens)",
            "clip_fraction/value": "value (of tokens)",
            "clip_fraction/reward": "reward (of answers)",
        },
        anchor=0,
        share=True,
    ),
    Chart("Explained variance (critic)", "", {"explained_variance": "explained"}, anchor=0, limits=((1.0, "1"),)),
    Chart("Value loss", "", {"loss/value": "value loss"}, anchor=0),
    Chart("Policy loss", "", {"loss/policy": "policy loss"}),
    Chart("KL within a rollout", "nats per token, k3", {"kl/old_k3": "KL (k3) to the sampled policy"}, anchor=0),
    Chart("KL coefficient β", "reward per nat", {"beta": "β"}, anchor=0),
)


def _parity(stage: StageFiles) -> list[Chart]:
    """Sampler against learner, with the recipe's bounds."""
    bounds = mapping(stage.config.get("parity"))
    limits = tuple(
        (value, f"bound {name}") for name in ("mean", "p99") if (value := number(bounds.get(name))) is not None
    )
    metrics = {"parity/mean": "mean", "parity/p99": "99th percentile"}
    return [Chart("Sampler against learner", "|Δ log p|, nats", metrics, anchor=0, limits=limits)]


def _scores(curves: Curves) -> Raw | None:
    """The mean raw score with one standard deviation around it."""
    mean, std = curves.points("score/mean"), curves.points("score/std")
    band = [(x, y - s, y + s) for (x, y), (_, s) in zip(mean, std, strict=False) if y is not None and s is not None]
    series = [Series("score", mean, band)]
    return line_chart("Score, mean ± 1 sd", series, x_label=curves.x_label, x_from=0.0, x_whole=True)


def _frontier(stage: StageFiles) -> Raw | None:
    """Score against distance, rollout by rollout: a gain that costs much KL is worth less."""
    pairs = [(number(row.get("kl/reference_k1")), number(row.get("score/mean"))) for row in stage.versions]
    points = [(kl, score) for kl, score in pairs if kl is not None and score is not None]
    if len(points) < 2:
        return None
    lines = [Series("score", points)]
    return line_chart("Score against KL", lines, x_label="KL to the reference, nats per answer (k1)")


def _counts(stage: StageFiles) -> Raw:
    versions = stage.versions
    planned = number(stage.config.get("versions"))
    done = f"{len(versions)} of {short(planned)}" if planned is not None else str(len(versions))
    prompts = mapping(stage.metrics.get("prompts"))
    found = [
        ("rollouts", done),
        ("updates", str(len(stage.updates))),
        ("score, first → last", _change(versions, "score/mean")),
        ("KL at the end (k1)", short(last(versions, "kl/reference_k1"))),
        ("tokens per answer", _change(versions, "length/mean")),
    ]
    if prompts:
        found.append(("prompts used", f"{short(number(prompts.get('used')))} of {short(number(prompts.get('given')))}"))
    return facts(found)


def _change(rows: Sequence[Row], metric: str) -> str:
    values = [value for row in rows if (value := number(row.get(metric))) is not None]
    return f"{short(values[0])} → {short(values[-1])}" if len(values) > 1 else short(values[0] if values else None)


def warnings(stage: StageFiles) -> list[str]:
    """What a reader should know before trusting the curves."""
    found = skipped(stage)
    found += [str(note) for note in listing(stage.metrics.get("notes"))]
    cut = last(stage.versions, "truncated")
    if cut is not None and cut > _MANY_TRUNCATED:
        found.append(f"{percent(cut, 0)} of the last rollout's answers were truncated")
    for metric, what in (("quarantined", "could not be scored"), ("excluded", "were left out as truncated")):
        count = sum(number(row.get(metric)) or 0 for row in stage.versions)
        if count:
            found.append(f"{short(count)} answers {what}, in all rollouts together")
    frozen = sum(1 for row in stage.versions if number(row.get("pretraining")))
    if frozen:
        found.append(f"the first {frozen} rollouts trained the critic alone" if frozen > 1 else _ALONE)
    return found


_ALONE = "the first rollout trained the critic alone"
