"""``trimtab data``: accounts, overlap and what a template makes of the rows; mixtures through the real driver."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from data.tiny import CHAT, tokenizer
from trimtab.data.template import Renderer
from trimtab.errors import RecipeError
from trimtab.pipeline.data_view import open_datasets, say_accounts, say_overlaps, say_template
from trimtab.pipeline.graph import Recipe
from trimtab.pipeline.missing import refuse_missing
from trimtab.pipeline.recipe import resolve
from trimtab.pipeline.text import read_recipe_text

RECIPE = """\
name: view
models: {base: {load: base}}
data:
  a: {source: a.jsonl, heldout: 0.2, on_bad_rows: {skip: 0.1}}
  b: {source: b.jsonl, heldout: 0.2}
  both: {mix: {a: 3, b: 1}}
stages:
  sft: {kind: sft, model: base, data: both.demonstrations}
"""


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Recipe:
    monkeypatch.chdir(tmp_path)
    rows: dict[str, Sequence[Any]] = {
        "a": [*({"prompt": f"q{i}", "completion": f"a{i}"} for i in range(40)), {"prompt": "null", "completion": None}],
        "b": [{"prompt": f"z{i}", "completion": "<end>" if i == 3 else f"a{i}"} for i in range(40)],
    }
    for name, given in rows.items():
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in given))
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "config.json").write_text("{}")
    return resolve(read_recipe_text(RECIPE, "view.yaml"))


def test_everything_about_the_data_is_said(recipe: Recipe) -> None:
    said: list[str] = []
    data = open_datasets(recipe, ["both"], said.append)
    assert list(data) == ["a", "b", "both"] and len(said) == 3
    assert "data both: 80 rows, a mixture of a 75.0%, b 25.0%" in said[2]
    say_accounts(data, said.append)
    text = "\n".join(said)
    assert "a: 41 rows in = " in text and "1 left out: expected text, got null" in text and "a.jsonl:41" in text
    assert "train of a" in text and "train of b" in text and "beyond the weight of b" in text
    said.clear()
    say_overlaps(["a.demonstrations", "b.demonstrations"], data, said.append)
    assert len(said) == 4
    assert "held-out a.demonstrations against training a.demonstrations: none of" in said[0]
    assert "an answer of a training row" in said[1]


def test_a_template_is_tried_on_every_row(recipe: Recipe) -> None:
    said: list[str] = []
    data = open_datasets(recipe, ["b"], said.append)
    rows = [*data["b"].rows("demonstrations"), *data["b"].rows("demonstrations", "heldout")]
    say_template("b.demonstrations", rows, Renderer(tokenizer(), CHAT), said.append)
    assert "template on b.demonstrations: 39 of 40 rows" in said[-2]
    assert said[-1] == "  1 refused: the assistant turn contains the control token '<end>': b.jsonl:4"


@pytest.mark.parametrize(
    ("data", "key", "why", "fix"),
    [
        ("both: {mix: {a: 3, c: 1}}", "data.both.mix.c", "there is no data 'c'", "a"),
        ("both: {mix: {a: 3, a2: 1}}\n  a2: {mix: {a: 1}}", "data.both.mix.a2", "is a mixture itself", "datasets"),
        ("both: {mix: {both: 1}}", "data.both.mix.both", "is a mixture itself", "datasets"),
        ("both: {mix: {a: 0}}", "data.both.mix.a", "0.0 is out of range", "above 0"),
        ("both: {mix: {a: 1}, source: a.jsonl}", "data.both", "both source and mix", "one of them"),
        ("both: {heldout: 0.1}", "data.both", "neither source nor mix", "one of them"),
    ],
)
def test_a_mixture_that_means_nothing_is_refused_at_its_key(
    recipe: Recipe, data: str, key: str, why: str, fix: str
) -> None:
    text = RECIPE.replace("both: {mix: {a: 3, b: 1}}", data)
    with pytest.raises(RecipeError, match=why) as refused:
        refuse_missing(resolve(read_recipe_text(text, "view.yaml")))
    assert fix in str(refused.value) and f"key '{key}'" in str(refused.value)


def test_a_good_mixture_and_a_hub_id_are_not_missing(recipe: Recipe) -> None:
    refuse_missing(recipe)
    text = RECIPE.replace("source: a.jsonl", "source: hf:owner/name")
    refuse_missing(resolve(read_recipe_text(text, "view.yaml")))
    with pytest.raises(RecipeError, match="no file matches"):
        refuse_missing(resolve(read_recipe_text(RECIPE.replace("b.jsonl", "gone.jsonl"), "view.yaml")))
