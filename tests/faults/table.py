"""Write what the last runs of the fault matrix found into docs/reliability.md: ``python -m faults.table``."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from faults.areas import TITLES

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "reliability.md"
SUMMARY = ROOT / ".faults" / "summary.json"
BEGIN, END = "<!-- faults: begin (made by python -m faults.table) -->", "<!-- faults: end -->"


def table(summary: Mapping[str, Mapping[str, Any]]) -> str:
    """The block between the marks: one row per area, and with what it was found."""
    lines = ["| what goes wrong | cases | run | ended as promised |", "|---|---:|---:|---:|"]
    for name, title in TITLES.items():
        row = summary.get(name, {"cases": "?", "run": 0, "failed": []})
        lines.append(f"| {title} | {row['cases']} | {row['run']} | {row['run'] - len(row['failed'])} |")
    run, failed = (sum(f(row) for row in summary.values()) for f in (lambda r: r["run"], lambda r: len(r["failed"])))
    lines.append(f"| **all** | {sum(row['cases'] for row in summary.values())} | {run} | {run - failed} |")
    found = sorted({each for row in summary.values() for each in row["with"]})
    lines += ["", f"Found with {'; '.join(found) or 'nothing yet'}, on Linux, one thread a process."]
    lines += [f"Failed: {name}: {case}." for name, row in summary.items() for case in row["failed"]]
    return "\n".join(lines)


def rewritten(page: str, block: str) -> str:
    """The page with the block between its marks replaced."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{block}\n{END}{after}"


def main() -> int:
    if not SUMMARY.exists():
        print(f"{SUMMARY.relative_to(ROOT)} is not there: run make faults first", file=sys.stderr)
        return 2
    PAGE.write_text(rewritten(PAGE.read_text("utf-8"), table(json.loads(SUMMARY.read_text("utf-8")))), "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
