"""What changed between two starts is named in the refusal; and of two drivers of one run the second is refused."""

from __future__ import annotations

import json
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from faults.ground import Case, Ground, ended
from faults.lab import Done, Server, serving
from faults.plant import Fault

UNDER_WAY = Fault("trimtab.train.fit:_update", 4, stage="sft")


def _edit(name: str, old: str, new: str) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        file = folder / name
        text = file.read_text("utf-8")
        assert old in text, f"{name} has no {old!r}"
        file.write_text(text.replace(old, new, 1), "utf-8")

    return edit


def _word(folder: Path) -> None:
    """One word of one row."""
    file = folder / "demonstrations.jsonl"
    rows = file.read_text("utf-8").splitlines()
    row = json.loads(rows[0])
    key = next(k for k, v in row.items() if isinstance(v, str) and " " in v)
    row[key] = row[key].replace(" ", " very ", 1)
    file.write_text("\n".join([json.dumps(row, ensure_ascii=False), *rows[1:]]) + "\n", "utf-8")


def _weights(folder: Path) -> None:
    file = folder / "base" / "model.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)


def _nothing(folder: Path) -> None:
    """The change is in the process, not in a file."""


DRIFTS: dict[str, tuple[Callable[[Path], None], tuple[str, ...], str]] = {
    "a word of the data": (_word, (), "stages.sft.inputs.data.sha256"),
    "a key of the recipe": (_edit("recipe.yaml", "minibatch: 4", "minibatch: 2"), (), "stages.sft.minibatch: 4 -> 2"),
    "the seed": (_edit("recipe.yaml", "seed: 3", "seed: 4"), (), "seed: 3 -> 4"),
    "the tokenizer": (_edit("base/tokenizer.json", "{", "{ "), (), "stages.sft.inputs.model.sha256"),
    "the base model's weights": (_weights, (), "stages.sft.inputs.model.sha256"),
    "the version of torch": (_nothing, ("other_torch",), "torch: "),
    "the version of transformers": (_nothing, ("other_transformers",), "transformers: "),
    "the number of threads": (_edit("run/manifest.json", '"threads": 1', '"threads": 4096'), (), "threads: 4096 -> 1"),
    "the processor": (_nothing, ("other_processor",), "cpu: "),
    "the tokens of a forward": (
        _edit("recipe.yaml", "token_budget: 96", "token_budget: 64"),
        (),
        "stages.sft.train.token_budget: 96 -> 64",
    ),
}


def is_named(ground: Ground, server: Server, folder: Path, what: str) -> str:
    change, mutations, says = DRIFTS[what]
    shutil.copytree(ground.broken(server, "sft", UNDER_WAY), folder)
    kept = {f: (folder / f).read_bytes() for f in ("recipe.yaml", "demonstrations.jsonl", "run/manifest.json")}
    kept |= {f"base/{f.name}": f.read_bytes() for f in (folder / "base").iterdir()}
    change(folder)
    done = server.run(folder, mutations=mutations, report=False)
    if done.code != 5 or says not in done.err or "fix: " not in done.err:
        return f"not named: {ended(done)}"
    for name, data in kept.items():
        (folder / name).write_bytes(data)
    return ground.goes_on(server, folder, "sft", 3)


def two_drivers(ground: Ground, server: Server, folder: Path, place: Fault) -> str:
    """The first is stopped in its tracks (SIGSTOP), the second started, the first let go on."""
    shutil.copytree(ground.before(server, "sft"), folder)
    lock, ends = folder / "run" / ".lock", list[Done]()
    with serving() as other:
        first = threading.Thread(target=lambda: ends.append(other.run(folder, faults=[place], report=False)))
        first.start()
        deadline = time.monotonic() + 600
        while not _stopped(lock):
            if time.monotonic() > deadline or not first.is_alive():
                return f"the first did not come so far: {ends}"
            time.sleep(0.02)
        pid = int(lock.read_text())
        printed = folder / "second"
        printed.mkdir()
        done = server.run(folder, report=False, printed=printed)
        os.kill(pid, signal.SIGCONT)
        first.join()
    if done.code != 6 or f"process {pid} drives this run" not in done.err:
        return f"the second was not refused: {ended(done)}"
    if ends[0].code:
        return ended(ends[0])
    return ground.different(server, folder, "sft")


def _stopped(lock: Path) -> bool:
    try:
        pid = lock.read_text().strip()
        return bool(pid) and "State:\tT" in Path(f"/proc/{pid}/status").read_text()
    except (OSError, ValueError):
        return False


def cases(ground: Ground, server: Server) -> Iterator[Case]:
    for what in DRIFTS:
        yield Case(
            f"changed between two starts: {what}",
            lambda server, folder, a=what: is_named(ground, server, folder, a),
            gate=True,
        )


DRIVERS = {
    "training": Fault("trimtab.train.fit:_update", 4, stage="sft", do="SIGSTOP"),
    "in the middle of a save": Fault("os:rename", 1, "before", "checkpoints/00000002$", do="SIGSTOP"),
    "tidying up": Fault("trimtab.pipeline.run:remove_leftovers", do="SIGSTOP"),
}


def driver_cases(ground: Ground, server: Server) -> Iterator[Case]:
    for where, fault in DRIVERS.items():
        yield Case(
            f"a second driver while the first is {where}",
            lambda server, folder, a=fault: two_drivers(ground, server, folder, a),
            gate=where != "tidying up",
        )
