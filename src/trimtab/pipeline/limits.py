"""What numbers a recipe may hold: one table, read for every key of every stage before anything loads. Torch-free."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

from trimtab.pipeline.graph import Recipe
from trimtab.schema import key_of

Rule = tuple[Callable[[Any], bool], str]

POSITIVE: Rule = (lambda x: x > 0, "above 0")
AT_LEAST_0: Rule = (lambda x: x >= 0, "0 or more")
AT_LEAST_1: Rule = (lambda x: x >= 1, "at least 1")
SHARE: Rule = (lambda x: 0 <= x <= 1, "between 0 and 1")
BELOW_1: Rule = (lambda x: 0 <= x < 1, "0 or more, and below 1")

LIMITS: dict[str, Rule] = {
    "seed": (lambda x: 0 <= x < 2**63, "0 or more, and below 2^63"),
    "branch": AT_LEAST_1,
    # optimiser
    "lr": POSITIVE,
    "warmup": SHARE,
    "final": SHARE,
    "weight_decay": AT_LEAST_0,
    "betas": BELOW_1,
    "eps": POSITIVE,
    "clip_norm": POSITIVE,
    # amounts
    "epochs": AT_LEAST_1,
    "minibatch": AT_LEAST_1,
    "limit": AT_LEAST_1,
    "heldout": AT_LEAST_0,
    "versions": AT_LEAST_1,
    "token_budget": AT_LEAST_1,
    "max_skips": AT_LEAST_1,
    "every_s": AT_LEAST_0,
    "keep": AT_LEAST_1,
    "bootstrap": AT_LEAST_1,
    # sampling
    "rollout.prompts": AT_LEAST_1,
    "samples": AT_LEAST_1,
    "max_new_tokens": AT_LEAST_1,
    "temperature": POSITIVE,
    "slots": AT_LEAST_1,
    # reward model
    "smoothing": (lambda x: 0 <= x < 0.5, "0 or more, and below 0.5"),
    "lm": AT_LEAST_0,
    "centring": AT_LEAST_0,
    # PPO's parts
    "coef": AT_LEAST_0,
    "target": POSITIVE,
    "horizon": AT_LEAST_1,
    "gamma": SHARE,
    "lambda": SHARE,
    "clip_low": (lambda x: 0 < x <= 1, "above 0, at most 1"),
    "clip_high": POSITIVE,
    "dual_clip": (lambda x: x > 1, "above 1"),
    "clip": POSITIVE,
    "clip.limit": POSITIVE,
    "min_count": AT_LEAST_1,
    "clip_advantage": POSITIVE,
    "explained_variance": SHARE,
    "bonus": POSITIVE,
    "target_kl": POSITIVE,
    "parity.mean": POSITIVE,
    "parity.p99": POSITIVE,
    # verdict
    "bounds.kl": POSITIVE,
    "bounds.perplexity": POSITIVE,
    "bounds.distinct_2": AT_LEAST_0,
    "bounds.length": AT_LEAST_0,
    "bounds.truncated": SHARE,
}
"""Key, or the last two keys of a path, -> rule. Null is always allowed here; types have been checked before."""

UNLIMITED = {"margin", "penalty.value"}
"""Numbers of any size and sign."""


def refuse_out_of_range(recipe: Recipe) -> None:
    """Raises ``RecipeError`` at the first number that no computation could use."""
    places = [("seed", recipe.seed)]
    places += [pair for name, spec in recipe.models.items() for pair in numbers(spec, f"models.{name}")]
    places += [pair for name, stage in recipe.stages.items() for pair in numbers(stage.config, f"stages.{name}")]
    for path, value in places:
        rule = rule_of(path)
        if rule is not None and not rule[0](value):
            raise recipe.error(path, f"{value} is out of range", f"write a number {rule[1]}")


def rule_of(path: str) -> Rule | None:
    """The rule of a dotted path: by its last two keys if they have one, else by its last."""
    parts = path.split(".")
    return LIMITS.get(".".join(parts[-2:])) or LIMITS.get(parts[-1])


def numbers(value: Any, path: str) -> Iterator[tuple[str, float]]:
    """Every number in a config with its dotted path; items of a list under the list's path."""
    if dataclasses.is_dataclass(value):
        word = getattr(type(value), "word", None)
        path = f"{path}.{word}" if word else path
        for field in dataclasses.fields(value):
            yield from numbers(getattr(value, field.name), f"{path}.{key_of(field.name)}")
    elif isinstance(value, tuple):
        for item in value:
            yield from numbers(item, path)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield path, value
