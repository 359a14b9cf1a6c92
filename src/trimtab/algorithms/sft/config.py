"""Recipe keys of ``kind: sft``. Torch-free."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from trimtab.train.config import OptimizerConfig, TrainConfig


@dataclass(frozen=True)
class SFTConfig:
    """Supervised fine-tuning on demonstrations.

    Attributes:
        model: what to start from: a name under ``models`` or an earlier stage.
        data: demonstrations, as ``dataset.demonstrations``.
        epochs: passes over the data.
        minibatch: sequences per update.
        limit: use at most this many rows (after the source's seeded shuffle); null = all.
        loss_on: ``answers`` = assistant turns with their end tokens; ``all`` = every token (continued pre-training).
        heldout: held-out rows for the NLL that is reported; 0 = none.
        optimizer: AdamW and its schedule.
        train: token budget and checkpoints.
    """

    model: str
    data: str
    optimizer: OptimizerConfig = field(default_factory=lambda: OptimizerConfig(lr=2e-5))
    epochs: int = 1
    minibatch: int = 32
    limit: int | None = None
    loss_on: Literal["answers", "all"] = "answers"
    heldout: int = 200
    train: TrainConfig = field(default_factory=TrainConfig)
