"""Charts that are no lines over time: intervals, calibration, histograms, fans, ridges, a frontier. Torch-free."""

from __future__ import annotations

import math
from collections.abc import Sequence
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
    named,
    r,
    rule,
    svg,
    swatch,
    ticks,
    widened,
)
from trimtab.pipeline.report_chart import path_of
from trimtab.pipeline.report_page import Raw, el, numbers, percent, short

Row = tuple[str, float, float | None, float | None, str]
"""Label, value, low, high, what is written beside it."""


def interval_chart(
    title: str, rows: Sequence[Row], *, x_label: str, reference: float, share: bool = False, mark: int = 1
) -> Raw | None:
    """Values with intervals, one row each, on one axis."""
    if not rows:
        return None
    ends = [x for _, value, low, high, _ in rows for x in (value, low, high) if x is not None]
    across = Scale(*widened(ends, anchor=reference), 8, WIDTH - 8)
    height = 36.0 * len(rows)
    parts: list[Raw] = []
    marks = ticks(across.low, across.high)
    for tick, text in zip(marks, named(marks, percents=share), strict=True):
        parts.append(rule(across(tick), 0, across(tick), height + 4, "grid"))
        parts.append(el("text", text, x=r(across(tick)), y=r(height + 17), text_anchor="middle"))
    parts.append(rule(across(reference), 0, across(reference), height + 4, "zero"))
    for i, (label, value, low, high, written) in enumerate(rows):
        y = 36.0 * i + 26
        room = int((WIDTH - 12) / LETTER) - len(written)
        parts.append(el("text", cut(label, max(8, room)), x=2, y=r(y - 11), class_="label"))
        parts.append(el("text", written, x=r(WIDTH - 2), y=r(y - 11), text_anchor="end", class_="value"))
        if low is not None and high is not None:
            parts.append(el("path", d=f"M{r(across(low))} {r(y)}H{r(across(high))}", class_=f"line whisker s{mark}"))
            for end in (low, high):
                parts.append(el("path", d=f"M{r(across(end))} {r(y - 4)}v8", class_=f"line whisker s{mark}"))
        parts.append(el("circle", cx=r(across(value)), cy=r(y), r=4, class_=f"f{mark}"))
    parts.append(el("text", x_label, x=r(WIDTH / 2), y=r(height + 33), text_anchor="middle"))
    show = percent if share else short
    told = [[label, show(value), show(low), show(high)] for label, value, low, high, _ in rows]
    picture = svg(parts, height + 38, title)
    return el("figure", el("figcaption", title), picture, numbers(["", "value", "low", "high"], told))


@dataclass(frozen=True)
class Dot:
    """A bin of a calibration chart: what was said, what came, the standard error of that, and of how many."""

    said: float
    came: float
    error: float
    n: int


def reliability_chart(
    title: str,
    dots: Sequence[Dot],
    *,
    x_label: str,
    unit: str,
    note: str,
    limits: tuple[float, float, float, float] | None = None,
    share: bool = False,
) -> Raw | None:
    """What came (up) against what was said (across), around the diagonal; the larger a dot, the more it stands for.

    ``limits``: low and high across, low and high up; charts of one group share them.
    """
    if not dots:
        return None
    low, high, under, over = limits or spans([dots])
    marks = ticks(under, over)
    across = Scale(low, high, left_of(marks, percents=share), WIDTH - RIGHT)
    up = Scale(under, over, HEIGHT - BOTTOM, TOP)
    parts = [frame(across, up, marks, x_label, across_percents=share, up_percents=share)]
    start, stop = max(low, under), min(high, over)
    if start < stop:
        parts.append(rule(across(start), up(start), across(stop), up(stop), "zero"))
    most, show = max(dot.n for dot in dots), percent if share else short
    for dot in dots:
        x, y = across(dot.said), up(dot.came)
        reach = 1.96 * dot.error
        span = f"M{r(x)} {r(up(max(under, dot.came - reach)))}V{r(up(min(over, dot.came + reach)))}"
        parts.append(el("path", d=span, class_="line whisker s1"))
        tip = el("title", f"{dot.n}: said {show(dot.said)}, came {show(dot.came)}")
        parts.append(el("circle", tip, cx=r(x), cy=r(y), r=r(2.0 + 4.5 * math.sqrt(dot.n / most)), class_="f1"))
    told = [[show(d.said), show(d.came), show(1.96 * d.error), short(d.n)] for d in dots]
    table = numbers(["said", "came", "± 95 %", "n"], told)
    caption = el("figcaption", title, el("span", unit, class_="unit"), el("span", note, class_="legend"))
    return el("figure", caption, svg(parts, HEIGHT, title), table)


def spans(groups: Sequence[Sequence[Dot]]) -> tuple[float, float, float, float]:
    """Axes that hold the dots of every group."""
    said = [dot.said for dots in groups for dot in dots]
    came = [dot.came + sign * 1.96 * dot.error for dots in groups for dot in dots for sign in (-1, 1)]
    return (*widened(said), *widened([*came, *said]))


def histogram(
    title: str, values: Sequence[float], *, x_label: str, bins: int = 25, what: str = "prompts"
) -> Raw | None:
    """How values are spread; zero and the mean are marked."""
    if len(values) < 2:
        return None
    across = Scale(*widened(values, anchor=0.0), 36, WIDTH - RIGHT)
    width = (across.high - across.low) / bins
    counts = counted(values, across.low, across.high, bins)
    up = Scale(0, max(counts) * 1.05, HEIGHT - BOTTOM, TOP)
    parts = [frame(across, up, ticks(0, up.high, 4), x_label)]
    for i, count in enumerate(counts):
        x, y = across(across.low + i * width), up(count)
        box = across(across.low + (i + 1) * width) - x - 1
        parts.append(el("rect", x=r(x), y=r(y), width=r(box), height=r(up(0) - y), class_="f1 bar"))
    mean = sum(values) / len(values)
    parts.append(rule(across(0), TOP, across(0), up(0), "zero"))
    parts.append(el("path", d=f"M{r(across(mean))} {r(TOP)}V{r(up(0))}", class_="line c2"))
    key = el("span", f"{what} per bar · ", swatch(2), f"mean {short(mean, sign=True)}", class_="legend")
    told = [
        [short(across.low + i * width), short(across.low + (i + 1) * width), short(n)] for i, n in enumerate(counts)
    ]
    table = numbers(["from", "to", what], told)
    return el("figure", el("figcaption", title, key), svg(parts, HEIGHT, title), table)


def counted(values: Sequence[float], low: float, high: float, bins: int) -> list[int]:
    """How many values lie in each of equal bins; what lies outside goes to the outermost."""
    counts, width = [0] * bins, (high - low) / bins
    for value in values:
        counts[max(0, min(int((value - low) / width), bins - 1))] += 1
    return counts


FAN = (0.05, 0.25, 0.5, 0.75, 0.95)
"""Quantiles of a fan."""


def quantiles(values: Sequence[float], shares: Sequence[float] = FAN) -> list[float]:
    """By linear interpolation; of at least one value."""
    ordered = sorted(values)
    made = []
    for share in shares:
        place = share * (len(ordered) - 1)
        below = int(place)
        above = min(below + 1, len(ordered) - 1)
        made.append(ordered[below] + (place - below) * (ordered[above] - ordered[below]))
    return made


def fan_chart(
    title: str,
    groups: Sequence[tuple[float, Sequence[float]]],
    *,
    x_label: str,
    unit: str,
    anchor: float | None = None,
    x_span: tuple[float, float] | None = None,
) -> Raw | None:
    """Median, middle half and middle 90 % of values, version by version."""
    rows = [(x, quantiles(values)) for x, values in groups if values]
    if len(rows) < 2:
        return None
    low, high = widened([q for _, found in rows for q in found], anchor=anchor)
    marks = ticks(low, high)
    right = 9 + LETTER * len("middle 90 %")
    start, stop = x_span or (rows[0][0], rows[-1][0])
    across = Scale(min(start, rows[0][0]), max(stop, rows[-1][0]), left_of(marks), WIDTH - right)
    up = Scale(low, high, HEIGHT - BOTTOM, TOP)
    parts = [frame(across, up, marks, x_label, whole=True)]
    for first, last, kind in ((0, 4, "wide"), (1, 3, "narrow")):
        edge = [f"{r(across(x))} {r(up(found[last]))}" for x, found in rows]
        edge += [f"{r(across(x))} {r(up(found[first]))}" for x, found in reversed(rows)]
        parts.append(el("path", d="M" + "L".join(edge) + "Z", class_=f"fan {kind}"))
    parts.append(el("path", d=path_of([(x, found[2]) for x, found in rows], across, up), class_="line c1"))
    last = rows[-1][1]
    ends = [(up(last[2]), "median", 1), (up(last[3]), "middle half", 1), (up(last[4]), "middle 90 %", 1)]
    parts += end_labels(ends, WIDTH - right + 5, TOP + 2, up.start)
    table = numbers([x_label, "5 %", "25 %", "median", "75 %", "95 %"], [[short(x), *map(short, q)] for x, q in rows])
    caption = el("figcaption", title, el("span", unit, class_="unit"))
    return el("figure", caption, svg(parts, HEIGHT, title), table)


def ridge_chart(
    title: str, groups: Sequence[tuple[str, Sequence[float]]], *, x_label: str, bins: int = 32, whole: bool = False
) -> Raw | None:
    """Distributions one above another on one axis, in one scale of area: version by version, first on top."""
    groups = [(name, values) for name, values in groups if len(values) > 1]
    if not groups:
        return None
    everything = [value for _, values in groups for value in values]
    low, high = widened(everything)
    if whole:  # a bin holds the same number of whole values everywhere
        low, size = math.floor(min(everything)), max(1, math.ceil((max(everything) - min(everything) + 1) / bins))
        high = low + size * math.ceil((max(everything) - low + 1) / size)
        bins = round((high - low) / size)
    counts = [counted(values, low, high, bins) for _, values in groups]
    shares = [[n / len(values) for n in row] for row, (_, values) in zip(counts, groups, strict=True)]
    tallest = max(max(row) for row in shares)
    left, pitch = 14 + LETTER * max(len(name) for name, _ in groups), 34.0
    across, height = Scale(low, high, left, WIDTH - RIGHT), pitch * len(groups) + 10
    parts: list[Raw] = []
    marks = ticks(low, high, 5)
    for tick, text in zip(marks, named(marks), strict=True):
        parts.append(rule(across(tick), 6, across(tick), height, "grid"))
        parts.append(el("text", text, x=r(across(tick)), y=r(height + 15), text_anchor="middle"))
    for i, ((name, values), row) in enumerate(zip(groups, shares, strict=True)):
        base = pitch * (i + 1) + 8
        up, width = Scale(0, tallest, base, base - 1.25 * pitch), (high - low) / bins
        steps = [f"{r(across(low + (j + k) * width))} {r(up(s))}" for j, s in enumerate(row) for k in (0, 1)]
        outline = f"M{r(across(low))} {r(base)}L" + "L".join(steps) + f"L{r(across(high))} {r(base)}Z"
        parts.append(el("path", d=outline, class_="ridge"))
        middle = across(quantiles(values, (0.5,))[0])
        parts.append(el("path", d=f"M{r(middle)} {r(base)}v-14", class_="line median"))
        parts.append(rule(left, base, WIDTH - RIGHT, base, "axis"))
        parts.append(el("text", name, x=r(left - 6), y=r(base - 2), text_anchor="end", class_="label"))
    parts.append(el("text", x_label, x=r((left + WIDTH - RIGHT) / 2), y=r(height + 31), text_anchor="middle"))
    width = (high - low) / bins
    head = ["from", "to", *(name for name, _ in groups)]
    told = [
        [short(low + j * width), short(low + (j + 1) * width), *(short(row[j]) for row in counts)] for j in range(bins)
    ]
    note = el("span", "areas are equal · upright stroke: median", class_="legend")
    return el("figure", el("figcaption", title, note), svg(parts, height + 36, title), numbers(head, told))


@dataclass(frozen=True)
class Frontier:
    """One run's way: (what it cost, what it gained, standard error of that, name of the point), in order."""

    label: str
    points: Sequence[tuple[float, float, float, str]]


def frontier_chart(title: str, runs: Sequence[Frontier], *, x_label: str, unit: str, note: str = "") -> Raw | None:
    """Gain against cost, point by point: the higher and the further left, the better."""
    places = [index for index, run in enumerate(runs, 1) if len(run.points) > 1]
    runs = [run for run in runs if len(run.points) > 1]
    if not runs:
        return None
    every = [point for run in runs for point in run.points]
    low, high = widened([y + sign * 1.96 * e for _, y, e, _ in every for sign in (-1, 1)])
    marks = ticks(low, high)
    right = RIGHT + 12 if len(runs) < 2 else 12 + LETTER * max(len(cut(run.label, 14)) for run in runs)
    across = Scale(*widened([x for x, *_ in every], anchor=0.0), left_of(marks), WIDTH - right)
    up = Scale(low, high, HEIGHT - BOTTOM, TOP)
    parts = [frame(across, up, marks, x_label)]
    for index, run in zip(places, runs, strict=True):
        parts.append(
            el("path", d=path_of([(x, y) for x, y, *_ in run.points], across, up), class_=f"line thin c{index}")
        )
        named_ones = set(_few([name for *_, name in run.points])) if len(runs) == 1 else set[str]()
        for x, y, error, name in run.points:
            span = f"M{r(across(x))} {r(up(y - 1.96 * error))}V{r(up(y + 1.96 * error))}"
            parts.append(el("path", d=span, class_=f"line whisker faint s{index}"))
            tip = el("title", f"{name}: {short(y)} at {short(x)}")
            parts.append(el("circle", tip, cx=r(across(x)), cy=r(up(y)), r=2.6, class_=f"f{index}"))
            if name in named_ones:
                parts.append(el("text", name, x=r(across(x) + 4), y=r(up(y) - 6), class_="value"))
        if len(runs) > 1:
            x, y, *_ = run.points[-1]
            parts.append(el("text", cut(run.label, 14), x=r(across(x) + 6), y=r(up(y) + 4), class_=f"end t{index}"))
    told = [[run.label, name, short(x), short(y), short(1.96 * e)] for run in runs for x, y, e, name in run.points]
    caption = el(
        "figcaption", title, el("span", unit, class_="unit"), el("span", note, class_="legend") if note else None
    )
    table = numbers(["run", "point", x_label, unit or "gain", "± 95 %"], told)
    return el("figure", caption, svg(parts, HEIGHT, title), table)


def _few(names: Sequence[str], most: int = 4) -> list[str]:
    """The first, the last, and some between."""
    if len(names) <= most:
        return list(names)
    return [names[round(i * (len(names) - 1) / (most - 1))] for i in range(most)]
