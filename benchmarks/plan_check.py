"""``python -m benchmarks.plan_check``: what ``trimtab plan`` predicts beside what a stage really takes.

Each case runs its stage in a process of its own; memory is that process's largest resident set (``ru_maxrss``), disk is
every byte in the stage's folder at the end. Prints the table of docs/plan.md.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.plan_cases import CASES, Case, lay_out
from trimtab.pipeline.recipe import load
from trimtab.pipeline.run import run
from trimtab.pipeline.stages import STAGES, load_function


def forked(do: Callable[[], None], folder: Path) -> dict[str, float]:
    """Seconds and peak memory of something done in a fork of this process, in ``folder``.

    This process has imported everything, which costs seconds each time, and keeps nothing of what its forks load.
    """
    results, theirs = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.chdir(folder)
            began = time.monotonic()
            do()
            found: dict[str, Any] = {"seconds": time.monotonic() - began}
            found["memory"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        except BaseException as error:
            found = {"error": f"{type(error).__name__}: {error}"}
        os.write(theirs, json.dumps(found).encode())
        os._exit(0)
    os.close(theirs)
    with os.fdopen(results) as file:
        found = json.loads(file.read() or '{"error": "it was killed"}')
    os.waitpid(pid, 0)
    if "error" in found:
        raise SystemExit(f"{folder}: {found['error']}")
    return found


def _run(folder: Path, recipe: str) -> dict[str, float]:
    return forked(lambda: void(run(load(recipe), Path("run"), say=lambda line: None)), folder)


def void(_: object) -> None:
    """Forget a result."""


def measure(case: Case, folder: Path) -> dict[str, float]:
    """Peak memory (bytes), disk (bytes) and seconds of the case's stage."""
    if case.reward:
        _run(folder, "before.yaml")
    found = _run(folder, "recipe.yaml")
    stage = folder / "run" / "stages" / "stage"
    return found | {"disk": float(sum(f.stat().st_size for f in stage.rglob("*") if f.is_file()))}


def predict(folder: Path) -> dict[str, Any]:
    """The same numbers from ``trimtab plan``, in a process of its own, so that nothing is warm."""
    command = [sys.executable, "-m", "trimtab", "plan", "recipe.yaml", "--json"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{folder.name}: {done.stderr[-2000:]}")
    return json.loads(done.stdout)["stages"]["stage"]


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--only", default="", help="cases whose name contains this")
    arguments.add_argument("--store", type=Path, help="measurements are kept in this JSON file, and read from it")
    args = arguments.parse_args()
    for kind in STAGES.values():
        load_function(kind.run)  # what every process that runs a stage imports
    store: dict[str, dict[str, float]] = {}
    if args.store is not None and args.store.exists():
        store = json.loads(args.store.read_text(encoding="utf-8"))
    print(
        "| case | memory, MB: plan | measured | off | disk, MB: plan | measured | off |\n|---|---|---|---|---|---|---|"
    )
    for case in (case for case in CASES if args.only in case.name):
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            forked(lambda case=case, folder=folder: lay_out(case, folder), folder)
            planned = predict(folder)
            if case.name not in store:
                store[case.name] = measure(case, folder)
        if args.store is not None:
            args.store.write_text(json.dumps(store, indent=1), encoding="utf-8")
        found = store[case.name]
        cells = [case.name]
        for what in ("memory", "disk"):
            cells += [
                f"{planned[what] / 1e6:.0f}",
                f"{found[what] / 1e6:.0f}",
                f"{planned[what] / found[what] - 1:+.1%}",
            ]
        print("| " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
