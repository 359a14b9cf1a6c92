"""Axes of the report's charts: data to picture, round ticks, a grid. Torch-free.

One size and one scale, so text stays readable on a phone; colours come from the page (light, dark, paper).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from trimtab.pipeline.report_page import Raw, el, join, short

WIDTH, HEIGHT = 340.0, 196.0
TOP, RIGHT, BOTTOM = 8.0, 10.0, 36.0
LETTER = 6.4
"""Width of a letter of the charts' text, about."""


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
    if not marks:
        return []
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
    if low == high == anchor:
        return low, low + 1.0
    if high - low < 1e-12 * max(1.0, abs(high)):
        pad = abs(high) * 0.1 or 1.0
        return low - pad, high + pad
    air = 0.06 * (high - low)
    return (low if low == anchor else low - air), (high if high == anchor else high + air)


def frame(
    across: Scale,
    up: Scale,
    marks: Sequence[float],
    x_label: str,
    *,
    across_percents: bool = False,
    up_percents: bool = False,
    whole: bool = False,
) -> Raw:
    """Grid, ticks and the horizontal axis' name."""
    parts: list[Raw] = []
    for tick, text in zip(marks, named(marks, percents=up_percents), strict=True):
        parts.append(rule(across.start, up(tick), across.stop, up(tick), "grid"))
        parts.append(el("text", text, x=r(across.start - 5), y=r(up(tick) + 4), text_anchor="end"))
    below = ticks(across.low, across.high, 5 if across.stop - across.start < 240 else 6, whole=whole)
    for tick, text in zip(below, named(below, percents=across_percents), strict=True):
        parts.append(rule(across(tick), up.start, across(tick), up.start + 4, "axis"))
        parts.append(el("text", text, x=r(across(tick)), y=r(up.start + 16), text_anchor="middle"))
    parts.append(rule(across.start, up.start, across.stop, up.start, "axis"))
    middle = (across.start + across.stop) / 2
    parts.append(el("text", x_label, x=r(middle), y=r(up.start + 32), text_anchor="middle"))
    return join(parts)


def left_of(marks: Sequence[float], *, percents: bool = False) -> float:
    """Room for the vertical axis' numbers."""
    return 12 + LETTER * max((len(text) for text in named(marks, percents=percents)), default=1)


def end_labels(places: Sequence[tuple[float, str, int]], x: float, top: float, bottom: float) -> list[Raw]:
    """Names beside the ends of lines, moved apart where they would overlap. Places: y, name, number of the series."""
    step, moved = 13.0, [list(place) for place in sorted(places)]
    for before, after in pairwise(moved):
        after[0] = max(float(after[0]), float(before[0]) + step)
    excess = max(0.0, float(moved[-1][0]) - bottom) if moved else 0.0
    for place, below in zip(reversed(moved), [None, *reversed(moved)], strict=False):
        limit = bottom if below is None else float(below[0]) - step
        place[0] = max(top, min(float(place[0]), limit)) if excess else float(place[0])
    return [el("text", name, x=r(x), y=r(float(y) + 4), class_=f"end t{index}") for y, name, index in moved]


def svg(parts: Sequence[Raw | None], height: float, title: str, width: float = WIDTH) -> Raw:
    """The picture. Its name is what a screen reader says; the numbers are in the table below it."""
    return el("svg", *parts, viewBox=f"0 0 {r(width)} {r(height)}", class_="chart", role="img", aria_label=title)


def swatch(index: int) -> Raw:
    """A sample of a series' line."""
    stroke = el("path", d="M1 5H25", class_=f"line c{index}")
    return el("svg", stroke, width=26, height=10, viewBox="0 0 26 10", aria_hidden="true")


def rule(x1: float, y1: float, x2: float, y2: float, kind: str) -> Raw:
    """A straight line."""
    return el("line", x1=r(x1), y1=r(y1), x2=r(x2), y2=r(y2), class_=kind)


def cut(text: str, most: int) -> str:
    """At most so many letters."""
    return text if len(text) <= most else text[: most - 1] + "…"


def r(value: float) -> str:
    """A coordinate: a tenth of a unit is enough."""
    return f"{value:.1f}".removesuffix(".0")
