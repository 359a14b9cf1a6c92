"""Experiment trackers, each an observer of the same rows. A tracker is one entry of ``TRACKERS``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from trimtab.errors import RecipeError
from trimtab.train.metrics import Observer


def tensorboard(folder: Path) -> Observer:
    """Scalars for TensorBoard under ``<stage>/tensorboard``; needs the extra ``trimtab[tensorboard]``."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise RecipeError(
            "tracker 'tensorboard' needs the package tensorboard", fix="pip install 'trimtab[tensorboard]'"
        ) from error
    writer = SummaryWriter(str(folder / "tensorboard"))

    def observe(row: Mapping[str, Any]) -> None:
        step = row["update"] if row["kind"] == "update" else row["version"]
        for name, value in row.items():
            if isinstance(value, (int, float)) and name not in ("update", "version"):
                writer.add_scalar(f"{row['kind']}/{name}", value, step)
        writer.flush()

    return observe


TRACKERS: dict[str, Callable[[Path], Observer]] = {"tensorboard": tensorboard}
