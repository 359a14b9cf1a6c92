"""Lines over updates or versions as inline SVG, named at their ends, with their numbers in a table. Torch-free.

Each series differs in dash as well as in colour, so black and white keeps them apart.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from trimtab.pipeline.report_axes import (
    BOTTOM,
    HEIGHT,
    LETTER,
    RIGHT,
    TOP,
    WIDTH,
    Scale,
    cut,
    end_labels,
    frame,
    left_of,
    r,
    rule,
    svg,
    ticks,
    widened,
)
from trimtab.pipeline.report_page import Raw, el, numbers, percent, short

SERIES = 6
"""Colours and dashes that the page has."""
_MOST = 300
"""Points drawn per line; more are averaged in groups."""
_ROWS = 60
"""Rows of a chart's table, about; of more points some are left out, evenly."""
_NAME = 14
"""Letters of a name at the end of a line."""

Point = tuple[float, float | None]
Format = Callable[[float | None], str]


@dataclass(frozen=True)
class Series:
    """One line. A point without a value interrupts it. ``band`` gives (x, low, high) around it."""

    label: str
    points: Sequence[Point]
    band: Sequence[tuple[float, float, float]] = ()

    @property
    def values(self) -> list[float]:
        return [y for _, y in self.points if y is not None]


def line_chart(
    title: str,
    series: Sequence[Series],
    *,
    x_label: str,
    unit: str = "",
    limits: Sequence[tuple[float, str]] = (),
    x_span: tuple[float, float] | None = None,
    x_whole: bool = False,
    anchor: float | None = None,
    share: bool = False,
    keep_looks: bool = False,
) -> Raw | None:
    """Lines over updates or versions; None if no series has a value.

    Args:
        unit: of the vertical axis, written beside the title.
        limits: horizontal lines with their names, drawn where they lie within twice the data's range.
        x_span: what the horizontal axis holds at least; else it goes from the first point to the last.
        x_whole: the horizontal axis counts something.
        anchor: a value that the vertical axis must show.
        share: values are shares, written in percent.
        keep_looks: a line looks the same where one before it has no value.
    """
    places = [index for index, s in enumerate(series, 1) if s.values or not keep_looks]
    series = [s for s in series if s.values]
    if not series:
        return None
    everything = [y for s in series for y in s.values] + [y for s in series for _, *edge in s.band for y in edge]
    low, high = widened(everything, anchor=anchor)
    shown = [(y, name) for y, name in limits if low - (high - low) <= y <= high + (high - low)]
    low, high = widened([low, high, *(y for y, _ in shown)], anchor=anchor) if shown else (low, high)
    marks = ticks(low, high)
    left, right = left_of(marks, percents=share), _right(series)
    xs = [x for s in series for x, _ in s.points] + list(x_span or ())
    across = Scale(*(widened([xs[0]]) if min(xs) == max(xs) else (min(xs), max(xs))), left, WIDTH - right)
    up = Scale(low, high, HEIGHT - BOTTOM, TOP)
    drawn: list[Raw] = [frame(across, up, marks, x_label, up_percents=share, whole=x_whole)]
    for y, name in shown:
        drawn += [rule(left, up(y), WIDTH - right, up(y), "limit")]
        drawn += [el("text", name, x=r(left + 4), y=r(up(y) - 4), class_="limit-text")]
    ends = []
    for index, one in zip(places, series, strict=False):
        parts, end = _drawn(one, index, across, up)
        drawn += parts
        ends.append((end, cut(one.label, _NAME), index))
    if len(series) > 1:
        drawn += end_labels(ends, WIDTH - right + 5, TOP + 2, up.start)
    show: Format = percent if share else short
    return figure(title, unit, svg(drawn, HEIGHT, title), series, show, x_label)


def figure(title: str, unit: str, picture: Raw, series: Sequence[Series], show: Format, x_label: str) -> Raw:
    """A chart under its name and unit, how its (only) line changed, and its numbers."""
    change, measured = None, el("span", unit, class_="unit") if unit else None
    if len(series) == 1 and len(series[0].values) > 1:
        values = series[0].values
        change = el("span", f"{show(values[0])} → {show(values[-1])}", class_="change")
    caption = el("figcaption", title, measured, " " if change else None, change)
    return el("figure", caption, picture, _table(series, x_label, show))


def _table(series: Sequence[Series], x_label: str, show: Format) -> Raw:
    """The lines' values where they are drawn; of long lines every n-th."""
    columns: list[dict[float, float | None]] = []
    for one in series:
        step = max(1, math.ceil(len(one.points) / _ROWS))
        kept = [*one.points[::step], *one.points[-1:]]
        columns.append(dict(kept))
    places = sorted({x for column in columns for x in column})
    bands = [{x: (low, high) for x, low, high in one.band} for one in series]
    head = [x_label]
    for one in series:
        head += [one.label or "value", *(["from", "to"] if one.band else [])]
    rows = []
    for x in places:
        row = [short(x)]
        for column, band, one in zip(columns, bands, series, strict=True):
            row.append(show(column.get(x)) if x in column else "")
            if one.band:
                row += [show(edge) for edge in band.get(x, (None, None))]
        rows.append(row)
    return numbers(head, rows)


def _right(series: Sequence[Series]) -> float:
    if len(series) < 2:
        return RIGHT
    return 9 + LETTER * max(len(cut(s.label, _NAME)) for s in series)


def thinned(points: Sequence[Point]) -> list[Point]:
    """At most ``_MOST`` points: means of equal groups (a group without a value stays a gap)."""
    if len(points) <= _MOST:
        return list(points)
    size = math.ceil(len(points) / _MOST)
    groups = [points[i : i + size] for i in range(0, len(points), size)]
    made: list[Point] = []
    for group in groups:
        known = [y for _, y in group if y is not None]
        made.append((sum(x for x, _ in group) / len(group), sum(known) / len(known) if known else None))
    return made


def smoothed(points: Sequence[Point], window: int) -> list[Point]:
    """Centred moving mean over ``window`` points, shorter at the ends; gaps are left out of it."""
    half, made = window // 2, []
    for i, (x, _) in enumerate(points):
        known = [y for _, y in points[max(0, i - half) : i + half + 1] if y is not None]
        made.append((x, sum(known) / len(known) if known else None))
    return made


def _drawn(one: Series, index: int, across: Scale, up: Scale) -> tuple[list[Raw], float]:
    """The line, and the height at which it ends."""
    parts: list[Raw] = []
    if one.band:
        edge = [f"{r(across(x))} {r(up(high))}" for x, _, high in one.band]
        edge += [f"{r(across(x))} {r(up(low))}" for x, low, _ in reversed(one.band)]
        parts.append(el("path", d="M" + "L".join(edge) + "Z", class_=f"band f{index}"))
    points = thinned(one.points)
    if len(points) > 60:
        parts.append(el("path", d=path_of(points, across, up), class_=f"line thin c{index}"))
        points = smoothed(points, max(5, len(points) // 20))
    parts.append(el("path", d=path_of(points, across, up), class_=f"line c{index}"))
    if len(points) <= 40:
        for x, y in points:
            if y is not None:
                tip = el("title", f"{one.label or 'value'} at {short(x)}: {short(y)}")
                parts.append(el("circle", tip, cx=r(across(x)), cy=r(up(y)), r=2.2, class_=f"f{index}"))
    return parts, up(next(y for _, y in reversed(points) if y is not None))


def path_of(points: Sequence[Point], across: Scale, up: Scale) -> str:
    """An SVG path; a point without a value lifts the pen."""
    steps, pen = [], "M"
    for x, y in points:
        if y is None:
            pen = "M"
            continue
        steps.append(f"{pen}{r(across(x))} {r(up(y))}")
        pen = "L"
    return "".join(steps)
