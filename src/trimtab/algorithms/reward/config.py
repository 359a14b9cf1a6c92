"""Recipe keys of ``kind: reward``. Torch-free."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from trimtab.train.config import OptimizerConfig, TrainConfig


@dataclass(frozen=True)
class RewardConfig:
    """A reward model from comparisons: pairs or rankings of K answers.

    Attributes:
        model: what to start from, normally the SFT stage.
        data: comparisons, as ``dataset.comparisons``.
        epochs: passes over the data; more than one inflates rewards.
        minibatch: sequences (answers) per update; a ranking is never split.
        limit: use at most this many comparisons; null = all.
        margin: added to the worse score: a number, ``data`` (the row's margin, or its difference of ratings); null = 0.
        smoothing: label smoothing a in -(1-a) logσ(Δ) - a logσ(-Δ); null = off.
        ties: ``drop`` gives no pair for a tie, ``half`` a pair with the soft label one half.
        lm: weight of the cross entropy on the best answer's tokens (the paper's β_rm); null = off.
        centring: weight of mean((r_c + r_r)^2); null = off.
        heldout: held-out comparisons for the accuracy that is reported and used to choose; 0 = none.
        baselines: scorers by name whose accuracy stands beside the model's (``vader``); longer-wins and a bag of words
            always do.
        optimizer: AdamW and its schedule.
        train: token budget and checkpoints.
    """

    model: str
    data: str
    optimizer: OptimizerConfig = field(default_factory=lambda: OptimizerConfig(lr=1e-5))
    epochs: int = 1
    minibatch: int = 32
    limit: int | None = None
    margin: float | Literal["data"] | None = None
    smoothing: float | None = None
    ties: Literal["drop", "half"] = "drop"
    lm: float | None = None
    centring: float | None = None
    heldout: int = 300
    baselines: tuple[str, ...] = ()
    train: TrainConfig = field(default_factory=TrainConfig)
