"""Stages that train adapters: stopped at every boundary and started anew, they end bit-identical, on the same base."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import toys
from trimtab.errors import Interrupted
from trimtab.train.fit import fit


def start(stage: str, family: str, folder: Path) -> tuple[Any, dict[str, torch.Tensor]]:
    bundle = toys.bundle_of(family, "lora")
    base = {name: tensor.clone() for name, tensor in bundle.lm.state_dict().items()}
    more = {} if stage == "ppo" else {"best": folder / "best"}
    return getattr(toys, stage)(bundle, **more), base


def state(folder: Path) -> dict[str, bytes]:
    last = sorted((folder / "checkpoints").iterdir())[-1]
    return {f.name: f.read_bytes() for f in [*last.iterdir(), folder / "metrics.jsonl"]}


@pytest.mark.parametrize(
    ("stage", "family"), [("sft", "gpt2"), ("reward", "llama"), ("ppo", "llama"), ("ppo", "bloom")]
)
def test_stopped_at_every_boundary(stage: str, family: str, tmp_path: Path) -> None:
    whole, base = start(stage, family, tmp_path / "whole")
    fit(whole, toys.loop(tmp_path / "whole", toys.train_config()))
    attempts = 0
    while True:
        attempts += 1
        broken, _ = start(stage, family, tmp_path / "broken")
        try:
            fit(broken, toys.loop(tmp_path / "broken", toys.train_config(), stop=lambda: "SIGTERM"))
        except Interrupted:
            continue
        break
    assert attempts > 2
    assert state(tmp_path / "whole") == state(tmp_path / "broken")
    for name, tensor in toys.weights(whole).items():
        assert torch.equal(tensor, toys.weights(broken)[name]), name
    for algorithm in (whole, broken):
        assert all(torch.equal(t, base[n]) for n, t in algorithm.bundle.lm.state_dict().items()), "the base moved"
    saved = load_file(sorted((tmp_path / "whole" / "checkpoints").iterdir())[-1] / "master.safetensors")
    moments = load_file(sorted((tmp_path / "whole" / "checkpoints").iterdir())[-1] / "exp_avg.safetensors")
    assert saved.keys() == moments.keys() == toys.weights(whole).keys()
    assert all("lora_" in name or ".head." in name for name in saved)
