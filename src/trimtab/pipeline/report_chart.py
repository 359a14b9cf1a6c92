"""Small charts as inline SVG: lines over updates, values with intervals, calibration, a histogram. Torch-free.

One size and one scale, so text stays readable on a phone; colours come from the page (light, dark, paper), and each
series differs in dash as well as in colour, so black and white keeps them apart.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from trimtab.pipeline.report_page import Raw, el, join, percent, short

WIDTH, HEIGHT = 360.0, 200.0
_TOP, _RIGHT, _BOTTOM = 8.0, 10.0, 34.0
_MOST = 300
"""Points drawn per line; more are averaged in groups."""

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


@dataclass(frozen=True)
class Scale:
    """Data to picture along one axis."""

    low: float
    high: float
    start: float
    stop: float

    def __call__(self, value: float) -> float:
        return self.start + (value - self.low) / (self.high - self.low) * (self.stop - self.start)


def ticks(low: float, high: float, most: int = 5, *, whole: bool = False) -> list[float]:
    """Round numbers (1, 2, 2.5 or 5 times a power of ten; ``whole``: no fractions) within ``low``..``high``."""
    span = high - low
    if span <= 0:
        return [low]
    power = 10.0 ** math.floor(math.log10(span / most))
    step = next((m * power for m in (1, 2, 2.5, 5, 10) if span / (m * power) <= most), 10 * power)
    step = max(1.0, round(step)) if whole else step
    first = math.ceil(low / step - 1e-9)
    return [round(i * step, 12) for i in range(first, math.floor(high / step + 1e-9) + 1)]


def named(marks: Sequence[float], *, percents: bool = False) -> list[str]:
    """Ticks as text, all with the decimals that their steps need."""
    if percents:
        return [f"{text} %" for text in named([round(100 * mark, 9) for mark in marks])]
    largest = max(abs(mark) for mark in marks)
    if largest >= 1e5 or 0 < largest < 1e-2:
        return [short(mark) for mark in marks]
    digits = next((d for d in range(6) if all(abs(m - round(m, d)) < 1e-9 * largest for m in marks)), 6)
    return [f"{mark:.{digits}f}".replace("-", "−") for mark in marks]


def widened(values: Sequence[float], *, anchor: float | None = None) -> tuple[float, float]:
    """An axis range around values with some air; ``anchor`` (usually 0) is within it."""
    low, high = min(values), max(values)
    if anchor is not None:
        low, high = min(low, anchor), max(high, anchor)
    if high - low < 1e-12 * max(1.0, abs(high)):
        pad = abs(high) * 0.1 or 1.0
        return low - pad, high + pad
    air = 0.06 * (high - low)
    return (low if low == anchor else low - air), (high if high == anchor else high + air)


def line_chart(
    title: str,
    series: Sequence[Series],
    *,
    x_label: str,
    unit: str = "",
    limits: Sequence[tuple[float, str]] = (),
    x_from: float | None = None,
    x_whole: bool = False,
    anchor: float | None = None,
    share: bool = False,
) -> Raw | None:
    """Lines over updates or versions; None if no series has a value.

    Args:
        unit: of the vertical axis, written beside the title.
        limits: horizontal lines with their names, drawn where they lie within twice the data's range.
        x_from: where the horizontal axis starts; else at the first point.
        x_whole: the horizontal axis counts something.
        anchor: a value that the vertical axis must show.
        share: values are shares, written in percent.
    """
    series = [s for s in series if s.values]
    if not series:
        return None
    everything = [y for s in series for y in s.values] + [y for s in series for _, *edge in s.band for y in edge]
    low, high = widened(everything, anchor=anchor)
    shown = [(y, name) for y, name in limits if low - (high - low) <= y <= high + (high - low)]
    low, high = widened([low, high, *(y for y, _ in shown)], anchor=anchor) if shown else (low, high)
    marks = ticks(low, high)
    left = 12 + 6.2 * max(len(text) for text in named(marks, percents=share))
    xs = [x for s in series for x, _ in s.points] + ([] if x_from is None else [x_from])
    across = Scale(*(widened([xs[0]]) if min(xs) == max(xs) else (min(xs), max(xs))), left, WIDTH - _RIGHT)
    up = Scale(low, high, HEIGHT - _BOTTOM, _TOP)
    drawn: list[Raw] = [_frame(across, up, marks, x_label, up_percents=share, whole=x_whole)]
    for y, name in shown:
        drawn += [_line(left, up(y), WIDTH - _RIGHT, up(y), "limit")]
        drawn += [el("text", name, x=_r(WIDTH - _RIGHT), y=_r(up(y) - 4), text_anchor="end", class_="limit-text")]
    for index, one in enumerate(series, 1):
        drawn += _drawn(one, index, across, up)
    return _figure(title, unit, series, drawn, percent if share else short)


def interval_chart(
    title: str,
    rows: Sequence[tuple[str, float, float | None, float | None, str]],
    *,
    x_label: str,
    reference: float,
    share: bool = False,
) -> Raw | None:
    """Values with intervals, one row each, on one axis. Rows: label, value, low, high, what is written beside it."""
    if not rows:
        return None
    ends = [x for _, value, low, high, _ in rows for x in (value, low, high) if x is not None]
    across = Scale(*widened(ends, anchor=reference), 8, WIDTH - 8)
    height = 34.0 * len(rows)
    parts: list[Raw] = []
    marks = ticks(across.low, across.high)
    for tick, text in zip(marks, named(marks, percents=share), strict=True):
        parts.append(_line(across(tick), 0, across(tick), height + 4, "grid"))
        parts.append(el("text", text, x=_r(across(tick)), y=_r(height + 17), text_anchor="middle"))
    parts.append(_line(across(reference), 0, across(reference), height + 4, "zero"))
    for i, (label, value, low, high, written) in enumerate(rows):
        y = 34.0 * i + 25
        parts.append(el("text", _cut(label, 34), x=2, y=_r(y - 11), class_="label"))
        parts.append(el("text", written, x=_r(WIDTH - 2), y=_r(y - 11), text_anchor="end", class_="value"))
        if low is not None and high is not None:
            parts.append(el("path", d=f"M{_r(across(low))} {_r(y)}H{_r(across(high))}", class_="line c1"))
            for end in (low, high):
                parts.append(el("path", d=f"M{_r(across(end))} {_r(y - 4)}v8", class_="line c1"))
        parts.append(el("circle", cx=_r(across(value)), cy=_r(y), r=4, class_="f1"))
    parts.append(el("text", x_label, x=_r(WIDTH / 2), y=_r(height + 32), text_anchor="middle"))
    return el("figure", el("figcaption", title), _svg(parts, height + 38, title))


def calibration_chart(title: str, bins: Sequence[tuple[float, float, int]]) -> Raw | None:
    """How often right (up) against how sure (across), 0.5..1; the larger a dot, the more pairs it stands for."""
    if not bins:
        return None
    low = min(0.5, *(accuracy for _, accuracy, _ in bins)) if len(bins) > 1 else min(0.5, bins[0][1])
    low = 0.5 if low >= 0.5 else max(0.0, low - 0.05)
    across, up = Scale(0.5, 1.0, 46, WIDTH - _RIGHT), Scale(low, 1.0, HEIGHT - _BOTTOM, _TOP)
    marks = ticks(low, 1.0)
    parts = [_frame(across, up, marks, "how sure: σ(difference of scores)", across_percents=True, up_percents=True)]
    parts.append(_line(across(0.5), up(0.5), across(1.0), up(1.0), "zero"))
    most = max(n for *_, n in bins)
    for sure, right, n in bins:
        dot = el("title", f"{n} pairs: sure {percent(sure)}, right {percent(right)}")
        radius = 2.5 + 6.5 * math.sqrt(n / most)
        parts.append(el("circle", dot, cx=_r(across(sure)), cy=_r(up(right)), r=_r(radius), class_="f1 bar"))
    note = el("span", "dots on the diagonal: as often right as sure", class_="legend")
    return el("figure", el("figcaption", title, note), _svg(parts, HEIGHT, title))


def histogram(title: str, values: Sequence[float], *, x_label: str, bins: int = 25) -> Raw | None:
    """How values are spread; zero and the mean are marked."""
    if len(values) < 2:
        return None
    across = Scale(*widened(values, anchor=0.0), 36, WIDTH - _RIGHT)
    width = (across.high - across.low) / bins
    counts = [0] * bins
    for value in values:
        counts[min(int((value - across.low) / width), bins - 1)] += 1
    up = Scale(0, max(counts) * 1.05, HEIGHT - _BOTTOM, _TOP)
    parts = [_frame(across, up, ticks(0, up.high, 4), x_label)]
    for i, count in enumerate(counts):
        x, y = across(across.low + i * width), up(count)
        box = across(across.low + (i + 1) * width) - x - 1
        parts.append(el("rect", x=_r(x), y=_r(y), width=_r(box), height=_r(up(0) - y), class_="f1 bar"))
    mean = sum(values) / len(values)
    parts.append(_line(across(0), _TOP, across(0), up(0), "zero"))
    parts.append(el("path", d=f"M{_r(across(mean))} {_r(_TOP)}V{_r(up(0))}", class_="line c2"))
    key = el("span", "prompts per bar · ", _swatch(2), f"mean {short(mean, sign=True)}", class_="legend")
    return el("figure", el("figcaption", title, key), _svg(parts, HEIGHT, title))


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


def _drawn(one: Series, index: int, across: Scale, up: Scale) -> list[Raw]:
    parts: list[Raw] = []
    if one.band:
        edge = [f"{_r(across(x))} {_r(up(high))}" for x, _, high in one.band]
        edge += [f"{_r(across(x))} {_r(up(low))}" for x, low, _ in reversed(one.band)]
        parts.append(el("path", d="M" + "L".join(edge) + "Z", class_=f"band f{index}"))
    points = thinned(one.points)
    if len(points) > 60:
        parts.append(el("path", d=_path(points, across, up), class_=f"line thin c{index}"))
        points = smoothed(points, max(5, len(points) // 20))
    parts.append(el("path", d=_path(points, across, up), class_=f"line c{index}"))
    if len(points) <= 40:
        for x, y in points:
            if y is not None:
                tip = el("title", f"{one.label or 'value'} at {short(x)}: {short(y)}")
                parts.append(el("circle", tip, cx=_r(across(x)), cy=_r(up(y)), r=2.2, class_=f"f{index}"))
    return parts


def _path(points: Sequence[Point], across: Scale, up: Scale) -> str:
    steps, pen = [], "M"
    for x, y in points:
        if y is None:
            pen = "M"
            continue
        steps.append(f"{pen}{_r(across(x))} {_r(up(y))}")
        pen = "L"
    return "".join(steps)


def _frame(
    across: Scale,
    up: Scale,
    marks: Sequence[float],
    x_label: str,
    *,
    across_percents: bool = False,
    up_percents: bool = False,
    whole: bool = False,
) -> Raw:
    """Grid, ticks and axis names."""
    parts: list[Raw] = []
    for tick, text in zip(marks, named(marks, percents=up_percents), strict=True):
        parts.append(_line(across.start, up(tick), across.stop, up(tick), "grid"))
        parts.append(el("text", text, x=_r(across.start - 5), y=_r(up(tick) + 4), text_anchor="end"))
    below = ticks(across.low, across.high, 6, whole=whole)
    for tick, text in zip(below, named(below, percents=across_percents), strict=True):
        parts.append(_line(across(tick), up.start, across(tick), up.start + 4, "axis"))
        parts.append(el("text", text, x=_r(across(tick)), y=_r(up.start + 15), text_anchor="middle"))
    parts.append(_line(across.start, up.start, across.stop, up.start, "axis"))
    middle = (across.start + across.stop) / 2
    parts.append(el("text", x_label, x=_r(middle), y=_r(up.start + 30), text_anchor="middle"))
    return join(parts)


def _figure(title: str, unit: str, series: Sequence[Series], parts: Sequence[Raw], show: Format) -> Raw:
    """A chart under its name and unit, how its (only) line changed, and a legend if it has several."""
    change, measured = None, el("span", unit, class_="unit") if unit else None
    if len(series) == 1 and len(series[0].values) > 1:
        values = series[0].values
        change = el("span", f"{show(values[0])} → {show(values[-1])}", class_="change")
    named = [el("span", _swatch(i), s.label) for i, s in enumerate(series, 1)] if len(series) > 1 else []
    legend = el("span", *named, class_="legend") if named else None
    return el("figure", el("figcaption", title, measured, change, legend), _svg(parts, HEIGHT, title))


def _svg(parts: Sequence[Raw], height: float, title: str) -> Raw:
    return el("svg", *parts, viewBox=f"0 0 {_r(WIDTH)} {_r(height)}", class_="chart", role="img", aria_label=title)


def _swatch(index: int) -> Raw:
    stroke = el("path", d="M1 5H25", class_=f"line c{index}")
    return el("svg", stroke, width=26, height=10, viewBox="0 0 26 10", aria_hidden="true")


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> Raw:
    return el("line", x1=_r(x1), y1=_r(y1), x2=_r(x2), y2=_r(y2), class_=kind)


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


def _r(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")
