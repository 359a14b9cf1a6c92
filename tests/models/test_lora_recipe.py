"""What a recipe says of adapters, and what it refuses before a model loads."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

from trimtab.errors import RecipeError
from trimtab.pipeline.inputs import sources_of
from trimtab.pipeline.recipe import resolve
from trimtab.pipeline.text import read_recipe_text
from trimtab.protocols import LoRASpec

RECIPE = """\
name: adapters
models:
  base: {load: some/model, lora: {r: 4, targets: [q_proj, v_proj]}}
  judge: {load: some/judge, gives: reward model}
data: {asked: {source: asked.jsonl}, told: {source: told.jsonl}}
stages:
  sft: {kind: sft, model: base, data: told.demonstrations}
  policy: {kind: ppo, model: sft, reward: vader, prompts: asked.prompts, sharing: lora}
"""


def read(*overrides: str):
    return resolve(read_recipe_text(RECIPE, "adapters.yaml"), overrides)


def test_adapters_belong_to_the_model_and_are_inherited() -> None:
    recipe = read()
    assert recipe.models["base"].lora == LoRASpec(r=4, alpha=32.0, targets=("q_proj", "v_proj"))
    assert recipe.spec("sft", Path("run")).lora == recipe.models["base"].lora
    assert read("models.base.lora={}").models["base"].lora == LoRASpec()
    assert recipe.models["judge"].lora is None


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["models.base.branch=2"], "it is one or the other\n  fix: remove branch or lora from models.base"),
        (["stages.policy.sharing=separate"], "they would not be used\n  fix: set sharing: lora, or remove lora"),
        (["models.base.lora=null"], "model 'base' has none\n  fix: add lora to models.base, as in lora: {r: 16}"),
        (["models.base.lora.r=0"], "0 is out of range"),
        (["models.base.lora.alpha=0"], "0 is out of range"),
        (["models.base.lora.dropout=0.1"], "dropout"),
        (["models.judge.lora={}"], "a finished reward model learns nothing more"),
        (["stages.policy.reward=judge", "models.judge.template=plain", "stages.policy.critic.start=reward"],
         "the critic reads the policy's tokens, but the reward's 'judge' and 'base' have other templates"),
    ],
)  # fmt: skip
def test_what_contradicts_itself_is_refused(overrides: list[str], said: str) -> None:
    with pytest.raises(RecipeError) as refused:
        read(*overrides)
    assert said in str(refused.value)


def test_a_judge_with_another_template_is_fine() -> None:
    assert (
        read("stages.policy.reward=judge", "models.judge.template=plain").stages["policy"].models["reward"] == "judge"
    )


def test_a_missing_package_is_said_before_a_model_loads(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == "peft" else find(name, *a))
    with pytest.raises(RecipeError, match="LoRA needs the package peft") as refused:
        read()
    assert "pip install 'trimtab[lora]'" in str(refused.value)
    assert read("models.base.lora=null", "stages.policy.sharing=separate").stages


def test_a_manifest_reads_back_what_was_written() -> None:
    """Targets are a list in JSON: a start must not take its own manifest for a changed recipe."""
    recipe = read()
    made = sources_of(recipe, recipe.stages["sft"], lambda reference: "0")
    assert json.loads(json.dumps(made)) == made
