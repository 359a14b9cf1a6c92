"""The table of docs/reliability.md: made by one command, and of the areas that there are. Fast, and without torch."""

from __future__ import annotations

import re

from faults.areas import TITLES
from faults.table import BEGIN, END, PAGE, rewritten, table

SUMMARY = {
    "saves": {"cases": 300, "run": 30, "failed": ["a"], "with": ["torch 2"]},
    "drift": {"cases": 10, "run": 10, "failed": [], "with": ["torch 2"]},
}


def test_failures_and_cases_that_were_not_run_are_not_hidden() -> None:
    made = table(SUMMARY)
    assert f"| {TITLES['saves']} | 300 | 30 | 29 |" in made
    assert f"| {TITLES['damage']} | ? | 0 | 0 |" in made, "an area that was never run"
    assert "| **all** | 310 | 40 | 39 |" in made
    assert "Failed: saves: a." in made and "Found with torch 2" in made


def test_only_the_block_is_rewritten() -> None:
    page = f"before\n{BEGIN}\nold\n{END}\nafter\n"
    assert rewritten(page, "new") == f"before\n{BEGIN}\nnew\n{END}\nafter\n"
    assert rewritten(rewritten(page, "new"), "new") == rewritten(page, "new")


def test_the_page_has_a_row_for_every_area() -> None:
    text = PAGE.read_text("utf-8")
    block = text[text.index(BEGIN) : text.index(END)]
    rows = re.findall(r"^\| (?!what|\*\*|-)(.+?) \|", block, re.MULTILINE)
    assert rows == list(TITLES.values())
