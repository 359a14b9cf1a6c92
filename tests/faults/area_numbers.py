"""A number that is not finite, wherever one can arise: nothing is learned from it, and its rows are named."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from faults.ground import Case, Ground, ended
from faults.lab import Server, events
from faults.plant import Fault
from faults.poison import SITES, read

DIVERGED = 7


@dataclass(frozen=True)
class Planted:
    """``ends``: the answer is quarantined, the update skipped, or the run stopped; ``stage``, ``fault``: from where."""

    ends: Literal["quarantined", "skipped", "stopped"]
    stage: str = "policy"
    fault: Fault | None = None
    call: int = 1


LATER = Fault("trimtab.train.fit:_save", 3, stage="policy")
"""Pre-training of the critic is over."""

PLANTED: dict[str, Planted] = {
    "score of the reward model": Planted("quarantined", fault=LATER),
    "score of a scorer": Planted("quarantined", fault=LATER),
    "logits of the sampler": Planted("stopped", fault=LATER),
    "log-probability under the policy": Planted("stopped", fault=LATER),
    "log-probability under the reference": Planted("stopped", fault=LATER),
    "value": Planted("stopped", fault=LATER),
    "reward after shaping": Planted("skipped", fault=LATER),
    "advantage": Planted("skipped", fault=LATER, call=2),
    "loss": Planted("skipped", fault=LATER),
    "gradient": Planted("skipped", fault=LATER),
    "weights after a step": Planted("stopped", fault=LATER),
    "loss of imitation": Planted("skipped", "sft", Fault("trimtab.train.fit:_update", 4, stage="sft")),
    "loss of the reward model": Planted("skipped", "reward", Fault("trimtab.train.fit:_update", 4, stage="reward")),
}


def by_a_scorer(recipe: Path) -> None:
    """A scorer of texts gives the reward, so ``policy`` reads no reward model, and its critic starts as the policy."""
    text = recipe.read_text("utf-8")
    text = re.sub(r"    allow_weak_reward.*\n", "", text).replace("    reward: reward\n", "    reward: vader\n")
    recipe.write_text(text.replace("    critic: {", "    critic: {start: model, "), "utf-8")


def start(ground: Ground, server: Server, site: str, folder: Path) -> None:
    planted = PLANTED[site]
    if site != "score of a scorer":
        source = ground.before(server, planted.stage)
        shutil.copytree(ground.broken(server, planted.stage, planted.fault) if planted.fault else source, folder)
        return
    shutil.copytree(ground.before(server, "policy"), folder)
    by_a_scorer(folder / "recipe.yaml")


def problem_of(ground: Ground, server: Server, folder: Path, site: str, value: str) -> str:
    start(ground, server, site, folder)
    planted = PLANTED[site]
    before = {p.name for p in (folder / "run" / "stages" / planted.stage / "checkpoints").glob("*")}
    poison = {"site": site, "call": planted.call, "stage": planted.stage, "value": value}
    done = server.run(folder, poison=poison, report=False)
    record = read(folder)
    at = next((i for i, row in enumerate(record) if "planted" in row), None)
    if at is None:
        return f"was not planted: {ended(done)}"
    after = record[at + 1 :]
    if planted.ends == "stopped":
        return _stopped(folder, planted, done, after, before)
    if done.code:
        return ended(done)
    return _skipped(folder, planted, after) if planted.ends == "skipped" else _quarantined(folder, after, value)


def _stopped(folder: Path, planted: Planted, done: Any, after: list[dict[str, Any]], before: set[str]) -> str:
    if done.code != DIVERGED or "Traceback" in done.err:
        return f"not stopped: {ended(done)}"
    if any(row["before"] != row["after"] for row in after[1 if "weights" in done.err else 0 :]):
        return "updates were taken with it"
    saved = {p.name for p in (folder / "run" / "stages" / planted.stage / "checkpoints").glob("*")} - before
    if saved:
        return f"checkpoints were saved with it: {sorted(saved)}"
    return "" if "#" in done.err or "policy." in done.err else f"names no rows: {done.err}"


def _skipped(folder: Path, planted: Planted, after: list[dict[str, Any]]) -> str:
    skipped = [row for row in after if row["skipped"]]
    if not skipped:
        return "no update was skipped"
    if any(row["before"] != row["after"] for row in skipped):
        return "a skipped update changed the weights"
    if not any(row["before"] != row["after"] for row in after if not row["skipped"]):
        return "nothing was learned afterwards"
    told = events(folder / "run", planted.stage, "skipped")
    if not all(any(e["rows"] == row["rows"] and e["reason"] for e in told) for row in skipped):
        return "the event does not name the rows"
    return ""


def _quarantined(folder: Path, after: list[dict[str, Any]], value: str) -> str:
    told = events(folder / "run", "policy", "quarantined")
    if len(told) != 1 or len(told[0]["rows"]) != 1:
        return f"quarantined: {told}"
    row, version = told[0]["rows"][0], told[0]["version"] - 1
    lines = [json.loads(x) for x in (folder / "run/stages/policy/rollouts.jsonl").read_text("utf-8").splitlines()]
    found = [x for x in lines if x["version"] == version and f"{x['prompt_id']}#{x['sample']}" == row]
    if [(x["score"], x["reward"]) for x in found] != [(None, None)]:
        return f"the ledger says {found}"
    epochs = [x for x in after if row in x["rows"]]
    later = {f"{x['prompt_id']}#{x['sample']}" for x in lines if x["version"] > version}
    if epochs and row not in later:
        return "it was learned from"
    return "nothing was learned" if not any(x["before"] != x["after"] for x in after) else ""


def cases(ground: Ground, server: Server) -> Iterator[Case]:
    for site in SITES:
        for value in ("nan", "inf"):
            yield Case(
                f"{value}: {site}",
                lambda server, folder, a=(site, value): problem_of(ground, server, folder, *a),
                gate=value == "nan",
            )
