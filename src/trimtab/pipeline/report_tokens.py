"""An answer's tokens, shaded by how much likelier the policy finds each than the reference. Torch-free.

Direction and size show three ways: colour, the line below (solid: likelier, dotted: less likely; thicker: more), and
the number in nats that a pointer or a screen reader finds.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trimtab.pipeline.report_files import listing, number
from trimtab.pipeline.report_page import Raw, el, join, short

STEPS = (0.5, 1.5, 3.0)
"""Nats from which a token is shaded, shaded more, and most."""


def shaded(row: Mapping[str, Any], most: int) -> Raw | None:
    """The sampled part of an answer; None where the run did not record its tokens.

    Args:
        row: of ``samples/<version>.jsonl``.
        most: characters shown.
    """
    pieces, ratios = listing(row.get("pieces")), [number(x) for x in listing(row.get("log_ratio"))]
    if not pieces or len(pieces) != len(ratios):
        return None
    parts: list[Any] = []
    shown = 0
    for place, (piece, ratio) in enumerate(zip(map(str, pieces), ratios, strict=True)):
        if shown > most:
            parts.append(f" … ({len(pieces) - place} more tokens)")
            break
        shown += len(piece)
        last = place == len(pieces) - 1
        parts.append(_token(piece or (" [end]" if last and row.get("finish") == "end" else ""), ratio))
    return join(parts)


def _token(text: str, ratio: float | None) -> Any:
    if not text:
        return None
    kind = _kind(ratio)
    return text if kind is None else el("span", text, class_=f"k {kind}", title=f"{short(ratio, sign=True)} nats")


def _kind(ratio: float | None) -> str | None:
    """``u1``..``u3``: likelier than under the reference; ``d1``..``d3``: less likely; None: about the same."""
    if ratio is None:
        return None
    level = sum(abs(ratio) >= step for step in STEPS)
    return f"{'u' if ratio > 0 else 'd'}{level}" if level else None


def key() -> Raw:
    """What the shading means."""
    parts: list[Any] = ["Each token by log π − log π_ref, in nats: "]
    for letter, sign in (("d", "−"), ("u", "+")):
        order = (3, 2, 1) if letter == "d" else (1, 2, 3)
        for level in order:
            parts += [el("span", f" {sign}{STEPS[level - 1]:g} ", class_=f"k {letter}{level}"), " "]
        parts.append("less likely than under the reference (dotted) · " if letter == "d" else "likelier (solid). ")
    parts.append("[end] is the end token; their sum is the answer's KL estimate (k1).")
    return el("p", *parts, class_="key")
