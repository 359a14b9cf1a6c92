"""What every training stage has in common, as recipe keys. Torch-free."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True)
class OptimizerConfig:
    """AdamW for one group of parameters.

    Attributes:
        lr: peak learning rate.
        schedule: shape after the warm-up.
        warmup: share of all updates spent rising linearly to ``lr``, 0..1.
        final: learning rate at the end, as a share of ``lr``.
        weight_decay: decoupled decay; applied to matrices only.
        betas: AdamW's moment decays.
        eps: AdamW's denominator term.
        clip_norm: gradients of this group are scaled to at most this norm; null = not clipped.
    """

    lr: float
    schedule: Literal["constant", "linear", "cosine"] = "cosine"
    warmup: float = 0.03
    final: float = 0.0
    weight_decay: float = 0.0
    betas: tuple[float, float] = (0.9, 0.95)
    eps: float = 1e-8
    clip_norm: float | None = 1.0


@dataclass(frozen=True)
class CheckpointConfig:
    """When to save and what to keep.

    Attributes:
        every_s: seconds between checkpoints at the least; 0 saves at every boundary.
        keep: newest checkpoints kept (2 leaves a fallback if the newest is damaged).
    """

    every_s: float = 60.0
    keep: int = 2


@dataclass(frozen=True)
class TrainConfig:
    """How a stage computes; none of it changes what is learned.

    Attributes:
        token_budget: tokens per forward; larger is faster and needs more memory. Never changes the result.
        checkpoint: when to save.
        max_skips: updates skipped in a row for non-finite numbers before the stage halts.
        trackers: experiment trackers told of every row of metrics.jsonl.
    """

    token_budget: int = 4096
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    max_skips: int = 5
    trackers: tuple[Literal["tensorboard"], ...] = ()
