"""Progress and trackers see every row of metrics.jsonl, and the number of updates is what the data says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import toys
from trimtab.train.fit import fit
from trimtab.train.progress import Progress
from trimtab.train.trackers import TRACKERS


def rows_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_an_observer_sees_what_the_ledger_holds(tmp_path: Path) -> None:
    seen: list[Any] = []
    algorithm = toys.sft(toys.bundle_of())
    fit(algorithm, toys.loop(tmp_path, toys.train_config(), observers=(seen.append,)))
    assert [dict(row) for row in seen] == rows_of(tmp_path)


def test_updates_and_tokens_are_those_of_the_data(tmp_path: Path) -> None:
    algorithm = toys.sft(toys.bundle_of())
    updates = fit(algorithm, toys.loop(tmp_path, toys.train_config()))
    assert updates == 2 * 3, "10 rows in minibatches of 4, two epochs"
    rows = [row for row in rows_of(tmp_path) if row["kind"] == "update"]
    assert sum(row["tokens"] for row in rows) == 2 * sum(sum(text.act) for text in toys.texts(10))


def test_plain_lines_in_a_log_end_with_the_last_update(tmp_path: Path) -> None:
    said: list[str] = []
    algorithm = toys.sft(toys.bundle_of())
    with Progress("sft", algorithm.passes.updates, "update", said.append, every_s=1e9) as progress:
        fit(algorithm, toys.loop(tmp_path, toys.train_config(), observers=(progress,)))
    assert said[-1].startswith("sft 6/6 updates") and "loss/nll" in said[-1]


def test_tensorboard_holds_the_same_numbers(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    algorithm = toys.sft(toys.bundle_of())
    tracker = TRACKERS["tensorboard"](tmp_path)
    fit(algorithm, toys.loop(tmp_path, toys.train_config(), observers=(tracker,)))
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    shown = [event.value for event in events.Scalars("update/loss/nll")]
    written = [row["loss/nll"] for row in rows_of(tmp_path) if row["kind"] == "update"]
    assert len(shown) == len(written) and all(abs(a - b) < 1e-5 for a, b in zip(shown, written, strict=True))
