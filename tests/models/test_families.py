"""Every family: what the probe finds, every stage trains, trunk and branch, adapters; and the page says so."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaModel

import toys
from models import table
from models.families import ALL, MODES, NAMES, make_lm
from trimtab.errors import ModelError
from trimtab.models.bundle import Bundle
from trimtab.models.load import probe, probe_decoder
from trimtab.protocols import LoRASpec
from trimtab.train.fit import fit


@pytest.mark.parametrize("family", ALL)
def test_the_page_says_what_is_measured(family: str) -> None:
    rows = dict(zip(ALL, table.shown().splitlines()[2:], strict=True))
    assert rows[family] == table.measure(family).row(NAMES[family]), "PYTHONPATH=src:tests python tests/models/table.py"


@pytest.mark.parametrize("family", ALL)
def test_the_probe_finds_the_mode_of_models_and_of_bare_decoders(family: str) -> None:
    lm = make_lm(family)
    assert probe(lm) == MODES.get(family, "flat")
    assert probe_decoder(lm.base_model) == MODES.get(family, "flat")


def bundle_of(family: str, sharing: str) -> Bundle:
    lm = make_lm(family)
    lora = LoRASpec(r=2) if sharing == "lora" else None
    return Bundle(lm, probe(lm), 2 if sharing == "hydra" else None, lora, seed=1)


def trains(family: str, sharing: str, folder: Path) -> None:
    """SFT, reward model and PPO each take their updates, none of them skipped, and every trainable moves."""
    once: dict[str, Any] = {"epochs": 1, "train": toys.train_config(every_s=1e9)}
    for stage in ("sft", "reward", "ppo"):
        bundle = bundle_of(family, sharing)
        if stage == "ppo":
            algorithm: Any = toys.ppo(bundle, toys.ppo_config(versions=1, minibatch=8, parity=toys.LOOSE, **once))
        else:
            algorithm = getattr(toys, stage)(bundle, **once)
        before = toys.weights(algorithm)
        fit(algorithm, toys.loop(folder / stage, once["train"]))
        rows = [json.loads(line) for line in (folder / stage / "metrics.jsonl").read_text("utf-8").splitlines()]
        steps = [row for row in rows if row["kind"] == "update"]
        assert steps and not any(row["skipped"] for row in steps), f"{stage}: {steps}"
        after = toys.weights(algorithm)
        for group in algorithm.trainables:
            names = [name for name in before if name in algorithm.trainables[group].parameters]
            assert any(not torch.equal(before[name], after[name]) for name in names), f"{stage}: {group} stands still"


@pytest.mark.parametrize("family", ["bloom", "gpt2", "llama"])
@pytest.mark.parametrize("sharing", ["hydra", "lora", "separate"])
def test_every_stage_trains(family: str, sharing: str, tmp_path: Path) -> None:
    trains(family, sharing, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("family", sorted(set(ALL) - {"bloom", "gpt2", "llama"}))
@pytest.mark.parametrize("sharing", ["hydra", "lora", "separate"])
def test_every_stage_trains_in_every_family(family: str, sharing: str, tmp_path: Path) -> None:
    trains(family, sharing, tmp_path)


class Doubling(LlamaModel):
    """A family that does something after its layers that we know nothing of: above a trunk it would be done twice."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        out = super().forward(*args, **kwargs)
        out.last_hidden_state = 2 * out.last_hidden_state
        return out


class Strict(LlamaModel):
    """A family that wants to see the ids, so nothing can enter above its embedding."""

    def forward(self, input_ids: Any, **kwargs: Any) -> Any:
        return super().forward(input_ids=input_ids, **kwargs)


@pytest.mark.parametrize("kind", [Doubling, Strict])
def test_a_family_that_cannot_be_split_is_refused_by_name(kind: type) -> None:
    lm = make_lm("llama")
    lm.model.__class__ = kind
    mode = probe(lm)
    Bundle(lm, mode, None)
    with pytest.raises(ModelError, match=kind.__name__) as refused:
        Bundle(lm, mode, 2)
    assert "sharing: separate" in refused.value.fix and "lora" in refused.value.fix


def test_a_family_whose_layers_are_not_found_is_refused_by_name() -> None:
    lm = make_lm("llama")
    lm.model.more = torch.nn.ModuleList(torch.nn.Identity() for _ in range(4))
    with pytest.raises(ModelError, match="LlamaModel") as refused:
        Bundle(lm, "flat", 2)
    assert "sharing: separate" in refused.value.fix
