"""The whole fault matrix: ``make faults``, or ``python -m faults.full`` with ``src`` and ``tests`` on the path.

Cases that a run has done are in its results file, one JSON line each; started again it does the others, and those that
failed. Every case starts the command line in processes of its own, forked from this one, which has everything imported.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import resource
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from faults import server
from faults.ground import Case, Ground
from faults.lab import Server
from faults.matrix import AREAS

RESULTS = Path(".faults") / "results.jsonl"


class Forking(Server):
    """Launches forked from this very process: it needs no server."""

    def __init__(self) -> None:
        """Nothing to start."""

    def ends(self, job: Mapping[str, Any]) -> tuple[int, float]:
        pid = os.fork()
        if pid:
            return server.wait_for(pid, job["seconds"], job["kill_at"])
        code = 1
        try:
            server.become(dict(job))
            from trimtab.apps.cli import main as trimtab

            code = trimtab(job["argv"])
        except BaseException:
            traceback.print_exc()
        finally:  # never back into the runner, whose files and folders this child shares
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)


def cases_of(area: str, ground: Path) -> list[Case]:
    return list(AREAS[area].cases(Ground(ground), Forking()))


def names_of(area: str, ground: Path) -> list[tuple[str, bool]]:
    """Name of every case of an area, and whether it is one of the gate's. Lays out what they start from."""
    return [(case.name, case.gate) for case in cases_of(area, ground)]


def run(area: str, name: str, folder: Path, ground: Path) -> dict[str, Any]:
    """Whether a case ends as promised, and how long it took; a case that breaks itself is a failure too."""
    began = time.monotonic()
    try:
        case = next(case for case in cases_of(area, ground) if case.name == name)
        problem = case.problem(Forking(), folder)
    except Exception:
        problem = f"the case broke: {traceback.format_exc(limit=-3)}"
    shutil.rmtree(folder, ignore_errors=True)
    return {"area": area, "case": name, "problem": problem, "seconds": round(time.monotonic() - began, 2)}


def read_results(file: Path) -> dict[tuple[str, str], dict[str, Any]]:
    """Latest result of every case, by area and name."""
    lines = file.read_text("utf-8").splitlines() if file.exists() else []
    return {(row["area"], row["case"]): row for row in map(json.loads, lines)}


def machine() -> str:
    """What a result was found with."""
    import torch
    import transformers

    return f"python {platform.python_version()}, torch {torch.__version__}, transformers {transformers.__version__}"


def summarise(file: Path, area: str, names: list[str]) -> None:
    """Put what is known of an area's cases, from this run and earlier ones, into the summary beside the results."""
    known = read_results(file)
    rows = [known[area, name] for name in names if (area, name) in known]
    summary = file.with_name("summary.json")
    made = json.loads(summary.read_text("utf-8")) if summary.exists() else {}
    made[area] = {
        "cases": len(names),
        "run": len(rows),
        "failed": [row["case"] for row in rows if row["problem"]],
        "with": sorted({row["machine"] for row in rows}),
    }
    summary.write_text(json.dumps(made, indent=1), "utf-8")


def do_area(area: str, asked: argparse.Namespace, pool: ProcessPoolExecutor, folder: Path) -> int:
    """Run the cases of an area that are not done; how many failed."""
    ground, known = asked.ground or folder / "ground", read_results(asked.results)
    ground.mkdir(parents=True, exist_ok=True)
    names = pool.submit(names_of, area, ground).result()
    chosen = [name for name, gate in names if gate or not asked.gate][:: max(1, round(1 / asked.sample))]
    todo = [name for name in chosen if (area, name) not in known or known[area, name]["problem"]]
    print(f"{area}: {len(names)} cases, {len(chosen)} asked for, {len(todo)} to do", flush=True)
    if asked.list:
        print(*(f"  {name}" for name in chosen), sep="\n")
        return 0
    failed = 0
    futures = [pool.submit(run, area, name, folder / f"{area}-{i}", ground) for i, name in enumerate(todo)]
    for at, future in enumerate(as_completed(futures), 1):
        row = {**future.result(), "machine": machine()}
        with open(asked.results, "a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        failed += bool(row["problem"])
        print(f"  {at}/{len(todo)} {'FAILED' if row['problem'] else 'ok'} {row['case']}", flush=True)
        if row["problem"]:
            print(f"    {row['problem']}", flush=True)
    summarise(asked.results, area, [name for name, _ in names])
    return failed


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--area", action="append", choices=list(AREAS), help="may be given several times")
    parser.add_argument("--gate", action="store_true", help="only what CI runs")
    parser.add_argument("--sample", type=float, default=1.0, help="this share of the cases, evenly")
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)), help="cases at a time")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--ground", type=Path, help="keep what cases start from here (and use it: of this very code)")
    parser.add_argument("--list", action="store_true", help="print the cases")
    asked = parser.parse_args()
    asked.results.parent.mkdir(parents=True, exist_ok=True)
    server.preload()
    with (
        tempfile.TemporaryDirectory(prefix="trimtab-faults-") as folder,
        ProcessPoolExecutor(max(1, asked.jobs), multiprocessing.get_context("fork")) as pool,
    ):
        failed = sum(do_area(area, asked, pool, Path(folder)) for area in asked.area or AREAS)
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    print(f"{failed} failed" if failed else "all ended as promised", end="")
    print(f"; {used.ru_utime + used.ru_stime:.0f} s of processor time")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
