"""Contrast of everything that is read or drawn, computed from the style sheet's own colours (WCAG 2.2)."""

from __future__ import annotations

import re
from collections.abc import Mapping

import pytest

from trimtab.pipeline.report_style import DARK, LIGHT, PAPER, STYLE


def luminance(colour: str) -> float:
    """Relative luminance of ``#rrggbb`` (WCAG 2.2)."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [x / 12.92 if x <= 0.04045 else ((x + 0.055) / 1.055) ** 2.4 for x in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_the_measure_itself() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)  # the known grey that just fails


SERIES = [f"s{i}" for i in range(1, 7)]
SHADES = ["up1", "up2", "up3", "down1", "down2", "down3"]
TEXT = [
    *[(name, "panel") for name in ("ink", "soft", "warn", "good", "bad", *SERIES)],
    *[(name, "page") for name in ("ink", "soft", "s1")],
    *[("ink", shade) for shade in SHADES],
    ("good", "good-page"), ("bad", "bad-page"), ("ink", "bad-page"), ("ink", "plain-page"), ("soft", "plain-page"),
]  # fmt: skip
LINES = [*[(name, "panel") for name in (*SERIES, "soft", "bad", "ink")], ("s1", "fan-narrow"), ("s1", "fan")]


@pytest.mark.parametrize("palette", [LIGHT, DARK, PAPER], ids=["light", "dark", "paper"])
def test_text_can_be_read_and_lines_be_seen(palette: Mapping[str, str]) -> None:
    found = {f"{a} on {b}": contrast(palette[a], palette[b]) for a, b in TEXT}
    assert not {name: round(value, 2) for name, value in found.items() if value < 4.5}
    # on a fan the median is drawn over the other band too, which it must differ from
    found = {f"{a} on {b}": contrast(palette[a], palette[b]) for a, b in LINES}
    assert not {name: round(value, 2) for name, value in found.items() if value < 3}


def test_every_colour_comes_from_a_palette() -> None:
    rules = re.sub(r"--[\w-]+: #\w+;", "", STYLE)
    assert not re.findall(r"#[0-9a-fA-F]{3,8}\b", rules)
    assert {name for name in re.findall(r"var\(--([\w-]+)\)", STYLE)} <= LIGHT.keys() == DARK.keys() == PAPER.keys()


def test_shading_is_never_colour_alone() -> None:
    for level in (1, 2, 3):
        up = re.search(rf"\.u{level} {{([^}}]*)}}", STYLE)
        down = re.search(rf"\.d{level} {{([^}}]*)}}", STYLE)
        assert up and down
        assert f"{level}px solid" in up[1] and f"{level}px dotted" in down[1]
