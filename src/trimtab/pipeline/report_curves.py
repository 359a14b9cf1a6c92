"""Rows of ``metrics.jsonl`` as charts: which metrics belong together, and what is drawn of the rest. Torch-free."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from trimtab.pipeline.report_chart import Point, Series, line_chart
from trimtab.pipeline.report_files import Row, StageFiles, number
from trimtab.pipeline.report_page import Raw, el, missing

_COUNTERS = {"kind", "update", "version", "micro_batches", "skipped"}


@dataclass(frozen=True)
class Chart:
    """One chart: metric -> label of its line. Only metrics that the run wrote are drawn.

    Attributes:
        anchor: a value that the vertical axis shows (0 for shares and losses).
        share: values are shares and written in percent.
        limits: metric-independent horizontal lines, (value, name).
    """

    title: str
    unit: str
    metrics: dict[str, str]
    anchor: float | None = None
    share: bool = False
    limits: tuple[tuple[float, str], ...] = ()


class Curves:
    """A stage's metrics as lines over one axis, and which of them have been drawn.

    Args:
        by_version: PPO's axis: what a version sampled lies at its number, an update between its version and the next.
            Otherwise updates.
    """

    def __init__(self, stage: StageFiles, *, by_version: bool) -> None:
        self.stage, self.by_version = stage, by_version
        self.drawn: set[str] = set()
        self._places = _places(stage.updates) if by_version else [_at(row, "update") for row in stage.updates]

    @property
    def x_label(self) -> str:
        return "version" if self.by_version else "updates"

    @property
    def span(self) -> tuple[float, float] | None:
        """One horizontal axis for all charts of versions."""
        if not self.by_version or not (self.stage.versions or self.stage.updates):
            return None
        done = [_at(row, "version") for row in self.stage.versions]
        return 0.0, max(1.0, *done, *(_at(row, "version") + 1 for row in self.stage.updates))

    def points(self, metric: str) -> list[Point]:
        """The metric's values in order: from version rows where they have it, else from update rows."""
        self.drawn.add(metric)
        # A version row is written once its rollout is learned from, but describes the weights that sampled it.
        shift = 1.0 if self.by_version else 0.0
        versions = [(_at(row, "version") - shift, number(row[metric])) for row in self.stage.versions if metric in row]
        if versions:
            return versions
        pairs = zip(self._places, self.stage.updates, strict=True)
        return [(at, number(row[metric])) for at, row in pairs if metric in row]

    def chart(self, chart: Chart) -> Raw | None:
        """A chart, or None if the run wrote none of its metrics."""
        lines = [Series(label, self.points(metric)) for metric, label in chart.metrics.items()]
        return line_chart(
            chart.title,
            lines,
            x_label=self.x_label,
            unit=chart.unit,
            x_whole=True,
            x_span=self.span,
            limits=chart.limits,
            anchor=chart.anchor,
            share=chart.share,
        )

    def charts(self, charts: Sequence[Chart]) -> Raw:
        """A grid of charts."""
        made = [made for chart in charts if (made := self.chart(chart)) is not None]
        return el("div", *made, class_="charts") if made else missing("no metrics were written")

    def rest(self) -> Raw | None:
        """Every metric that no chart has drawn yet, each by itself, folded away."""
        rows = (*self.stage.versions, *self.stage.updates)
        names = dict.fromkeys(name for row in rows for name in row if name not in _COUNTERS | self.drawn)
        made = [self.chart(Chart(name, "", {name: name})) for name in names]
        made = [chart for chart in made if chart is not None]
        if not made:
            return None
        return el("details", el("summary", f"{len(made)} more metrics"), el("div", *made, class_="charts"))


def skipped(stage: StageFiles) -> list[str]:
    """What to say of updates that were not taken because a number was not finite."""
    reasons = Counter(str(row["skipped"]) for row in stage.updates if row.get("skipped"))
    return [f"{count} of {len(stage.updates)} updates skipped, not finite: {what}" for what, count in reasons.items()]


def last(rows: Sequence[Row], metric: str) -> float | None:
    """The metric's last value that is a number."""
    values = [value for row in rows if (value := number(row.get(metric))) is not None]
    return values[-1] if values else None


def _at(row: Row, key: str) -> float:
    return number(row.get(key)) or 0.0


def _places(updates: Sequence[Row]) -> list[float]:
    """Update rows on the axis of versions: evenly between the version they learn from and the next."""
    inside = Counter(_at(row, "version") for row in updates)
    seen: Counter[float] = Counter()
    places = []
    for row in updates:
        version = _at(row, "version")
        seen[version] += 1
        places.append(version + seen[version] / inside[version])
    return places
