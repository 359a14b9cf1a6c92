"""A stage kind without a model, for tests of the driver: it counts, one boundary a count, and can be killed anywhere.

``python counting.py FOLDER run RECIPE ...`` is the real command line in a folder, with the kinds of this module beside
the real ones. ``COUNTING_PAUSES`` holds seconds per count by stage, as JSON.
"""

from __future__ import annotations

import json
import os
import sys
import time
from dataclasses import dataclass, field, replace
from pathlib import Path

from trimtab.errors import Interrupted
from trimtab.pipeline.stages import STAGES, StageKind
from trimtab.runtime.files import EMPTY_MARK, Ledger, atomic_dir, read_json, sha256_bytes, write_json
from trimtab.train.config import TrainConfig
from trimtab.train.stage import Result, StageContext


@dataclass(frozen=True)
class CountConfig:
    model: str
    data: str
    to: int = 3
    train: TrainConfig = field(default_factory=TrainConfig)


def run(config: CountConfig, context: StageContext) -> Result:
    """Counts to ``to``; every row depends on the seed, the data, the input's weights and the row before."""
    before = "start"
    pauses = json.loads(os.environ.get("COUNTING_PAUSES", "{}"))
    rows = context.rows(config.data)
    weights = Path(context.models["model"].load) / "weights"
    state = context.dir / "state.json"
    saved = read_json(state) if state.exists() else {"next": 0, "before": before, "mark": EMPTY_MARK}
    with Ledger(context.dir / "counts.jsonl") as ledger:
        ledger.cut_back(saved["mark"])
        before = saved["before"]
        for i in range(saved["next"], config.to):
            row = rows[i % len(rows)].id
            before = sha256_bytes(f"{context.seed} {context.name} {row} {weights.read_text()} {before}".encode())
            ledger.append({"i": i, "draw": before})
            time.sleep(pauses.get(context.name, 0.0))
            write_json(state, {"next": i + 1, "before": before, "mark": ledger.mark()})
            if context.stop() and i + 1 < config.to:
                raise Interrupted(f"{context.stop()}: saved count {i + 1}")
    with atomic_dir(context.dir / "model") as folder:
        (folder / "weights").write_text(before)
    return Result({"counted": config.to, "loss": float("nan")}, (f"counted to {config.to}",))


def verdict(config: object, context: StageContext) -> Result:
    return Result({"better": True}, ("it is better",))


def report(run_dir: Path) -> None:
    (run_dir / "report.html").write_text(
        " ".join(sorted(p.parent.name for p in run_dir.glob("stages/*/manifest.json")))
    )


def broken_report(run_dir: Path) -> None:
    raise ZeroDivisionError("no bars")


def kinds(module: str) -> dict[str, StageKind]:
    """``count``, and ``evaluate`` without models."""
    count = StageKind(CountConfig, f"{module}:run", ("model",), {"data": "demonstrations"}, "language model")
    verdict = replace(STAGES["evaluate"], run=f"{module}:verdict", data={"prompts": "demonstrations"})
    return {"count": count, "evaluate": verdict}


RECIPE = """\
name: counting
models: {base: {load: base}}
data: {d: {source: rows.jsonl}}
stages:
  one: {kind: count, model: base, data: d.demonstrations}
  two: {kind: count, model: one, data: d.demonstrations}
  other: {kind: count, model: base, data: d.demonstrations}
  verdict: {kind: evaluate, candidate: two, against: one, prompts: d.demonstrations}
"""

ROWS = """\
{"prompt": "One?", "completion": "Eins."}
{"prompt": "Two?", "completion": "Zwei."}
{"prompt": "Three?", "completion": "Drei."}
"""


def lay_out(folder: Path) -> Path:
    """A folder with the recipe, its rows and its model; returns the recipe's path."""
    (folder / "base").mkdir()
    (folder / "base" / "weights").write_text("base")
    (folder / "base" / "config.json").write_text("{}")
    (folder / "rows.jsonl").write_text(ROWS)
    (folder / "recipe.yaml").write_text(RECIPE)
    return folder / "recipe.yaml"


if __name__ == "__main__":
    from trimtab.apps.cli import main

    STAGES.update(kinds("__main__"))
    os.chdir(sys.argv[1])
    sys.exit(main(sys.argv[2:]))
