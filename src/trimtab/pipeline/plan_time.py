"""How long a stage takes: its work, counted from the recipe, at the rates measured on this machine. Torch-free.

The work is counted in floating-point operations of matrix products (two per number of a weight and token forward, four
more for its gradients), in decode steps, and in bytes written. The rates come from a calibration that runs the real
forward, backward and decode steps on a small model (``plan_calibrate``); attention's own products, which grow with the
square of a text's length, are counted too.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from trimtab.runtime.fetch import home


@dataclass(frozen=True)
class Work:
    """What a stage computes.

    Attributes:
        size: bytes per number of the compute dtype, 2 or 4.
        forward: floating-point operations without gradient.
        learned: operations of forward and backward passes.
        steps: decode steps.
        step_flops: operations of one decode step, all slots together.
        updates: optimiser steps.
        numbers: parameters that each of them changes.
        written: bytes of checkpoints and models, at least.
        loaded: bytes read from model files.
    """

    size: int = 4
    forward: float = 0.0
    learned: float = 0.0
    steps: float = 0.0
    step_flops: float = 0.0
    updates: int = 0
    numbers: int = 0
    written: float = 0.0
    loaded: float = 0.0


@dataclass(frozen=True)
class Rates:
    """What this machine does, measured.

    Attributes:
        process: bytes of a process before any model.
        start: seconds from nothing to a stage that begins to load.
        forward, learned: operations per second, by bytes per number (2: bfloat16, 4: float32).
        step: seconds of a decode step that do not depend on the model's size, per layer-free step.
        decode: operations per second of decode steps.
        optimiser: parameters per second of an AdamW step.
        write: bytes per second, hashed and on the disk.
        read: bytes per second of loading a model.
        threads: with which they were measured.
    """

    process: int
    start: float
    forward: dict[str, float]
    learned: dict[str, float]
    step: float
    decode: dict[str, float]
    optimiser: float
    write: float
    read: float
    threads: int


def calibration_file() -> Path:
    """Beside the models, in TRIMTAB_HOME."""
    return home() / "calibration.json"


def read_rates() -> Rates | None:
    """The rates of this machine; None before a calibration."""
    try:
        return Rates(**json.loads(calibration_file().read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def write_rates(rates: Rates) -> None:
    """Keep the rates for later plans."""
    file = calibration_file()
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(asdict(rates), indent=1) + "\n", encoding="utf-8")


def seconds_of(work: Work, rates: Rates) -> float:
    """Seconds of a stage in a process of its own."""
    size = str(work.size)
    computing = work.forward / rates.forward[size] + work.learned / rates.learned[size]
    decoding = work.steps * (rates.step + work.step_flops / rates.decode[size])
    stepping = work.updates * work.numbers / rates.optimiser
    return rates.start + computing + decoding + stepping + work.written / rates.write + work.loaded / rates.read
