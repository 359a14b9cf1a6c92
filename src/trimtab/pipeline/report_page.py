"""HTML that is safe by construction, the page around it, and numbers as people read them. Torch-free.

Every child and attribute of ``el`` is escaped unless ``el`` made it. The page loads nothing, runs nothing, and says so
to the browser (Content-Security-Policy).
"""

from __future__ import annotations

import html
import math
import re
from collections.abc import Iterable, Sequence
from typing import Any

from trimtab.pipeline.report_style import STYLE


class Raw(str):
    """HTML made by ``el``; never made from a string that came out of a file."""

    __slots__ = ()


_VOID = {"meta", "br", "hr"}
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ufffe\uffff]")


def el(tag: str, *children: Any, **attributes: Any) -> Raw:
    """An element. Children: ``Raw``, text (escaped), sequences of these, None (left out).

    ``class_`` becomes ``class``, other underscores hyphens; an attribute that is None is left out.
    """
    given = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{escape(value)}"'
        for name, value in attributes.items()
        if value is not None
    )
    if tag in _VOID:
        return Raw(f"<{tag}{given}>")
    return Raw(f"<{tag}{given}>{join(children)}</{tag}>")


def join(children: Iterable[Any]) -> Raw:
    """Children one after another, escaped where they are not HTML yet."""
    return Raw("".join(_child(child) for child in children))


def _child(child: Any) -> str:
    if child is None:
        return ""
    if isinstance(child, Raw):
        return child
    return join(child) if isinstance(child, list | tuple) else escape(child)


def escape(value: Any) -> str:
    """Text for HTML: markup escaped, control characters and lone surrogates (which UTF-8 has not) made visible."""
    text = str(value).encode("utf-8", "replace").decode("utf-8")
    return html.escape(_CONTROL.sub("\ufffd", text), quote=True)


def page(title: str, body: Sequence[Raw]) -> str:
    """The whole document."""
    head = el(
        "head",
        el("meta", charset="utf-8"),
        el("meta", http_equiv="Content-Security-Policy", content="default-src 'none'; style-src 'unsafe-inline'"),
        el("meta", name="viewport", content="width=device-width, initial-scale=1"),
        el("meta", name="color-scheme", content="light dark"),
        el("title", title),
        el("style", Raw(STYLE)),
    )
    return "<!doctype html>\n" + el("html", head, el("body", el("main", *body)), lang="en") + "\n"


def section(title: str, *children: Any, anchor: str = "", note: str = "") -> Raw:
    """A part of the page under a heading."""
    small = el("span", note, class_="note") if note else None
    return el("section", el("h2", title, small), *children, id=anchor or None)


def table(
    head: Sequence[Any], rows: Sequence[Sequence[Any]], *, numeric: Iterable[int] = (), cards: bool = False
) -> Raw:
    """A table; ``numeric`` columns are set right. On a narrow screen a wide one (``cards``: any) is a list of cards."""
    right = set(numeric)

    def cell(tag: str, i: int, value: Any) -> Raw:
        label = str(head[i]) if tag == "td" and i and head[i] else None
        return el(tag, value, class_="number" if i in right else None, data_label=label)

    body = [el("tr", *[cell("td", i, value) for i, value in enumerate(row)]) for row in rows]
    top = el("thead", el("tr", *[cell("th", i, name) for i, name in enumerate(head)])) if any(head) else None
    kind = "cards" if cards or len(head) > 3 else None
    return el("div", el("table", top, el("tbody", *body), class_=kind), class_="scroll", tabindex="0")


def numbers(head: Sequence[Any], rows: Sequence[Sequence[Any]]) -> Raw:
    """A chart's numbers as a table, folded away below it."""
    top = el("thead", el("tr", *[el("th", name) for name in head]))
    body = el("tbody", *[el("tr", *[el("td", value) for value in row]) for row in rows])
    return el("details", el("summary", "numbers"), el("div", el("table", top, body), class_="scroll"), class_="numbers")


def facts(pairs: Iterable[tuple[str, Any]]) -> Raw:
    """Short facts in a row: name, value."""
    return el("dl", *[el("div", el("dt", name), el("dd", value)) for name, value in pairs], class_="facts")


def missing(what: str) -> Raw:
    """Something that a report would show, and is not in the run directory."""
    return el("p", what, class_="missing")


def notes(lines: Iterable[str]) -> Raw | None:
    """What a reader should know before trusting the numbers; nothing if there is nothing."""
    items = [el("li", line) for line in lines]
    return el("ul", *items, class_="notes") if items else None


def badge(text: str, mood: str) -> Raw:
    """A word with a colour (``good``, ``bad``, ``plain``), never a colour alone."""
    return el("span", text, class_=f"badge {mood}")


def short(value: float | None, *, sign: bool = False) -> str:
    """A number with about three digits that matter; a dash where there is none."""
    if value is None or not math.isfinite(value):
        return "–"
    if value == 0:
        return "0"
    size, plus = abs(value), "+" if sign else ""
    if 1e-3 <= size < 1e7 and (size >= 1000 or value == round(value)):
        return f"{value:{plus},.0f}".replace(",", "\u2009").replace("-", "−")
    if size < 1e-3 or size >= 1e7:
        mantissa, _, power = f"{value:{plus}.1e}".partition("e")
        return f"{mantissa.removesuffix('.0')}e{int(power)}".replace("-", "−")
    digits = 0 if size >= 100 else 1 if size >= 20 else 2 if size >= 1 else 3
    return f"{value:{plus}.{digits}f}".replace("-", "−")


def percent(share: float | None, digits: int = 1) -> str:
    """A share in percent; a dash where there is none."""
    return "–" if share is None else f"{100 * share:.{digits}f} %".replace("-", "−")


def duration(seconds: float | None) -> str:
    """Seconds as people say them."""
    if seconds is None:
        return "–"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    hours, minutes = whole // 3600, whole % 3600 // 60
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {whole % 60:02d} s"
