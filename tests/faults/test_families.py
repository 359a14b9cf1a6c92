"""Families train every stage on one trunk, on one base or apart, are killed in each, and end with the same bytes.

Llama attends flat, GPT-2 has learned positions, BLOOM needs the padded fallback; bfloat16 keeps float32 masters.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from safetensors import safe_open

from e2e.tiny import lay_out
from faults.lab import KILLED, Server, assert_same, resumed
from faults.plant import Fault

pytestmark = pytest.mark.slow

UPDATE = "trimtab.train.fit:_update"
SHARING = {
    "hydra": (),
    "separate": ("models.base.branch=null", "stages.policy.sharing=separate"),
    "lora": (
        "models.base.branch=null",
        "models.base.lora={r: 2, alpha: 4, targets: null}",
        "stages.policy.sharing=lora",
    ),
}
CASES = [
    ("llama", "bfloat16", "hydra"),
    ("llama", "float32", "separate"),
    ("llama", "bfloat16", "lora"),
    ("gpt2", "float32", "hydra"),
    ("gpt2", "float32", "separate"),
    ("gpt2", "float32", "lora"),
    ("bloom", "float32", "hydra"),
    ("bloom", "float32", "separate"),
]
SHORT = ("stages.sft.epochs=1", "stages.reward.epochs=1", "stages.policy.versions=2", "stages.policy.epochs=1")
LOOSE = "stages.policy.parity={mean: 1, p99: 9}"  # random weights in bfloat16 are far from a trained model's
KILLS = (
    Fault(UPDATE, 4, stage="sft"),
    Fault(UPDATE, 4, stage="reward"),
    Fault("trimtab.train.checkpoint:save", 2, stage="policy"),
    Fault("trimtab.sampling.local:LocalSampler._draw", 2, stage="verdict"),
)


@pytest.mark.parametrize(("family", "dtype", "sharing"), CASES)
def test_trains_every_stage_and_resumes(server: Server, tmp_path: Path, family: str, sharing: str, dtype: str) -> None:
    overrides = [*SHORT, *SHARING[sharing], f"models.base.dtype={dtype}", LOOSE]
    whole, broken = lay_out(tmp_path / "whole", family), lay_out(tmp_path / "broken", family)
    done = server.run(whole, *overrides)
    assert done.code == 0, done.err
    for fault in KILLS:
        done = server.run(broken, *overrides, faults=[fault])
        assert done.code == KILLED, f"{fault}: {done.code}\n{done.err}"
    assert server.run(broken, *overrides).code == 0
    assert_same(whole / "run", broken / "run")
    stages = whole / "run" / "stages"
    for stage in ("sft", "reward", "policy"):
        rows = [json.loads(line) for line in (stages / stage / "metrics.jsonl").read_text("utf-8").splitlines()]
        steps = [row for row in rows if row["kind"] == "update"]
        assert len(steps) >= 2 and not any(row["skipped"] for row in steps)
        moved = {name for row in steps for name, value in row.items() if name.startswith("grad_norm/") and value > 0}
        assert moved == {"grad_norm/policy", "grad_norm/critic"} if stage == "policy" else len(moved) == 1
        assert resumed(broken / "run", stage), f"{stage} was not continued"
    mode = json.loads(next((stages / "sft" / "checkpoints").glob("*/state.json")).read_text("utf-8"))["fixed"]["mode"]
    assert mode == ("padded" if family == "bloom" else "flat")
    if sharing == "lora":
        _keeps_adapters_alone(stages)


def _keeps_adapters_alone(stages: Path) -> None:
    """Checkpoints hold adapters, their moments and heads; every model lies beside the adapter that was merged in."""
    for stage in ("sft", "reward", "policy"):
        file = next((stages / stage / "checkpoints").glob("*/master.safetensors"))
        with safe_open(file, "pt") as saved:
            assert all("lora_" in name or ".head." in name for name in saved.keys())  # noqa: SIM118
        assert (stages / stage / "model" / "adapter" / "adapter_model.safetensors").is_file()
