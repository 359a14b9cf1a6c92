"""``key.path=value`` from a command line, laid on a recipe's tree before presets are. Torch-free."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from trimtab.errors import RecipeError, Where
from trimtab.pipeline.text import read_value
from trimtab.schema import Node, Problems, did_you_mean, nearest

_NAMED = ("models", "data", "stages")


def apply_overrides(root: Node, overrides: Sequence[str], keys: Sequence[str], problems: Problems) -> Node:
    """The tree with overrides applied in order; errors name ``override 1``, ``override 2``, ...

    Args:
        root: the recipe's mapping.
        overrides: each ``key.path=value``, the value read as YAML.
        keys: the recipe's top keys.
        problems: told of an override without ``=``, with an unknown beginning of its path, or with a path that leads
            through a list; that one is left out.
    """
    for number, text in enumerate(overrides, 1):
        with problems.catching():
            root = _apply(root, f"override {number}", text, keys)
    return root


def _apply(root: Node, name: str, text: str, keys: Sequence[str]) -> Node:
    path, equals, value = text.partition("=")
    parts = path.strip().split(".")
    where = Where(name, key=path.strip())
    if not equals or not all(parts):
        raise RecipeError(f"'{text}' is not key.path=value", where=Where(name), fix="write stages.sft.epochs=2")
    if not value.strip():
        raise RecipeError("no value after '='", where=where, fix=f"write {path.strip()}=null to switch it off")
    _known_beginning(root, parts, keys, where)
    return _set(root, parts, read_value(value, where), where, name)


def _known_beginning(root: Node, parts: list[str], keys: Sequence[str], where: Where) -> None:
    """Names that only exist because an override misspelt them would be stages without a kind: say it better here."""
    assert isinstance(root.value, dict)
    top = parts[0]
    if top not in keys:
        stages = root.value.get("stages")
        inside = stages is not None and isinstance(stages.value, dict) and top in stages.value
        fix = f"did you mean 'stages.{'.'.join(parts)}'?" if inside else did_you_mean(top, keys)
        raise RecipeError(f"unknown key '{top}'", where=where, fix=fix)
    group = root.value.get(top)
    names = group.value if group is not None and isinstance(group.value, dict) else {}
    if top in _NAMED and len(parts) > 2 and parts[1] not in names:
        raise RecipeError(f"there is no '{parts[1]}' under {top}", where=where, fix=did_you_mean(parts[1], names))
    if top == "stages" and len(parts) == 2 and parts[1] not in names and nearest(parts[1], names):
        raise RecipeError(f"there is no stage '{parts[1]}'", where=where, fix=did_you_mean(parts[1], names))


def _set(node: Node, parts: list[str], value: Node, where: Where, origin: str) -> Node:
    if not parts:
        return value
    if isinstance(node.value, tuple):
        raise RecipeError("this path leads through a list", where=where, fix="give the whole list, as in key=[a, b]")
    # A null or a bare word on the way (``kl: null``, ``truncated: complete``) gives way to the mapping now asked for.
    inner = dict(node.value) if isinstance(node.value, dict) else {}
    child = inner.get(parts[0]) or Node({}, where, where, origin)
    inner[parts[0]] = _set(child, parts[1:], value, where, origin)
    return replace(node, value=inner)
