"""From recipe keys to a trainable: warm-up share into updates, a schedule over the planned number of updates."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from trimtab.protocols import Schedule, Trainable
from trimtab.train.config import OptimizerConfig


def trainable(parameters: Mapping[str, nn.Parameter], config: OptimizerConfig, updates: int) -> Trainable:
    """A group of parameters with the learning-rate schedule of ``updates`` planned optimiser steps."""
    schedule = Schedule(
        lr=config.lr,
        kind=config.schedule,
        warmup=round(config.warmup * updates),
        updates=updates,
        final=config.final,
    )
    return Trainable(
        parameters=parameters,
        schedule=schedule,
        clip_norm=config.clip_norm,
        weight_decay=config.weight_decay,
        betas=config.betas,
        eps=config.eps,
    )
