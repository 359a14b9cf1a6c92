"""What the pipeline hands to a stage, and what a stage hands back. Torch-free.

A stage is ``run(config, context) -> Result``: it finds its inputs resolved in the context, keeps everything it makes
under ``context.dir``, and when ``context.stop()`` names a signal it saves and raises ``Interrupted``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

DType = Literal["bfloat16", "float32"]


@dataclass(frozen=True)
class ModelSpec:
    """A model as the recipe names it, with what later stages inherit from it.

    Attributes:
        load: catalogue name, Hugging Face id or folder; for a stage's output, that stage's ``model`` folder.
        branch: layers above the frozen trunk (the recipe's one place for k); null = no trunk, everything trains.
        template: named chat template, or null for the tokenizer's own.
        dtype: of compute and of saved weights; master weights and gradient accumulators are float32 always.
        revision: of a Hugging Face id.
    """

    load: str
    branch: int | None = None
    template: str | None = None
    dtype: DType = "bfloat16"
    revision: str | None = None


class Dataset(Protocol):
    """A loaded source. ``rows`` gives records of one kind and split in a fixed, seeded order."""

    name: str

    def rows(self, kind: str, split: str = "train") -> list[Any]:
        """``kind``: demonstrations, comparisons, feedback, prompts, ratings; ``split``: train or heldout."""
        ...

    def account(self) -> Mapping[str, Any]:
        """Rows in = rows used + rows accounted for, by reason, with file and line; JSON-able."""
        ...


@dataclass(frozen=True)
class StageContext:
    """Everything a stage needs besides its own keys.

    Attributes:
        name: the stage's name in the recipe; part of every random stream.
        dir: ``<run>/stages/<name>``, exists.
        seed: the recipe's seed.
        models: the stage's model keys (``model``, ``reward``, ``candidate``, ...) resolved.
        dataset: name under ``data`` -> loaded dataset (cached over stages).
        stop: name of a received signal, or "" while none came.
        say: prints one line for a person.
        inexact: the user accepts that this machine continues the run with other sums.
    """

    name: str
    dir: Path
    seed: int
    models: Mapping[str, ModelSpec]
    dataset: Callable[[str], Dataset]
    stop: Callable[[], str] = lambda: ""
    say: Callable[[str], None] = print
    inexact: bool = False

    def rows(self, reference: str, split: str = "train") -> list[Any]:
        """Records of ``dataset.kind``, e.g. ``films.demonstrations``."""
        name, _, kind = reference.partition(".")
        return self.dataset(name).rows(kind, split)


@dataclass(frozen=True)
class Result:
    """A stage's outcome: numbers for the manifest and the report, and lines for the terminal."""

    metrics: Mapping[str, Any] = field(default_factory=dict)
    lines: tuple[str, ...] = ()
