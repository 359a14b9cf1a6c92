"""Strict reading of configuration: a tree of values with their places becomes frozen dataclasses by their type hints.

The tree is neutral (a recipe's YAML, an override, a preset); a value that means nothing is refused where it stands,
with what was expected and the nearest known name. Nothing is coerced but whole numbers where a number is wanted.

*Tagged choices*: a union of dataclasses that carry the class attribute ``word`` is written as the word, as
``{word: value}`` (a class of one field) or as ``{word: {field: value}}``. A field whose name ends in ``_`` is written
without it (``lambda_`` is ``lambda``).
"""

from __future__ import annotations

import collections.abc
import dataclasses
import difflib
import functools
import inspect
import math
import re
import types
import typing
from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager
from dataclasses import MISSING, dataclass, field
from typing import Any, Literal, TypeVar, Union, cast, get_args, get_origin

from trimtab.errors import RecipeError, Where

Scalar = None | bool | int | float | str
T = TypeVar("T")
NOWHERE = Where()


@dataclass(frozen=True)
class Node:
    """One value with its place.

    Attributes:
        value: a scalar, a tuple of nodes (list) or a dict of nodes (mapping).
        where: where the value stands.
        key_where: where its key stands, if it is a mapping's value.
        origin: who wrote it: ``recipe``, ``override 1``, ``preset ppo-max``.
    """

    value: Scalar | tuple[Node, ...] | dict[str, Node]
    where: Where = NOWHERE
    key_where: Where | None = None
    origin: str = "recipe"

    @property
    def place(self) -> Where:
        """Where a person looks for it: its key if it has one."""
        return self.key_where or self.where


def node_of(value: Any, where: Where = NOWHERE, origin: str = "recipe") -> Node:
    """A tree out of plain Python values, every node at the same place."""
    if isinstance(value, Mapping):
        items = cast(Mapping[str, Any], value).items()
        return Node({str(k): node_of(v, where, origin) for k, v in items}, where, where, origin)
    if isinstance(value, list | tuple):
        return Node(tuple(node_of(v, where, origin) for v in cast(list[Any], value)), where, where, origin)
    return Node(value, where, where, origin)


def plain(node: Node) -> Any:
    """The tree as dicts, lists and scalars."""
    if isinstance(node.value, dict):
        return {key: plain(child) for key, child in node.value.items()}
    return [plain(child) for child in node.value] if isinstance(node.value, tuple) else node.value


class RecipeErrors(RecipeError):
    """Several errors at once, each with its own place and fix, in the order in which they stand in the recipe."""

    def __init__(self, errors: Iterable[RecipeError]) -> None:
        self.errors = tuple(sorted(errors, key=_standing))
        first = self.errors[0]
        super().__init__(first.problem, where=first.where, fix=first.fix)
        self.args = ("\n".join([*map(str, self.errors), f"({len(self.errors)} problems)"]),)


def _standing(error: RecipeError) -> tuple[bool, str, int, int]:
    """Recipes before the overrides laid on them, then line and column."""
    where = error.where or NOWHERE
    return where.line is None, where.file, where.line or 0, where.column or 0


@dataclass
class Problems:
    """Collects errors, so that a person reads all of them and not one per attempt."""

    found: list[RecipeError] = field(default_factory=list[RecipeError])

    @contextmanager
    def catching(self) -> Generator[None]:
        """What is raised inside is kept, and what comes after goes on."""
        try:
            yield
        except RecipeErrors as several:
            self.found += several.errors
        except RecipeError as error:
            self.found.append(error)

    def raise_found(self) -> None:
        """Raises what was found: nothing, one error, or ``RecipeErrors``."""
        if len(self.found) == 1:
            raise self.found[0]
        if self.found:
            raise RecipeErrors(self.found)


def parse(node: Node, hint: type[T], path: str = "") -> T:
    """A value of type ``hint`` (normally a frozen dataclass) from a tree.

    Args:
        node: the tree.
        hint: dataclass, union, ``Literal``, ``tuple``, ``Mapping[str, X]``, ``float | None``, ...
        path: the node's dotted name, for messages (``stages.policy``).

    Raises:
        RecipeError: unknown or missing key, wrong type, not finite; it names file, line, column, key and a fix.
        RecipeErrors: several of them.
    """
    return _parse(node, hint, _Spot(path))


def to_plain(value: Any) -> Any:
    """The inverse of ``parse``: dicts, lists and scalars, every key written out, choices as ``{word: {...}}``."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        inner = {key_of(f.name): to_plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
        word = word_of(type(value))
        return inner if word is None else {word: inner} if inner else word
    if isinstance(value, Mapping):
        return {str(k): to_plain(v) for k, v in cast(Mapping[str, Any], value).items()}
    return [to_plain(v) for v in cast(list[Any], value)] if isinstance(value, list | tuple) else value


def merge(base: Node, over: Node, hint: Any) -> Node:
    """``over`` laid on ``base``: mappings key by key; lists, scalars, null or another choice replace it."""
    kinds = [member for member in members(hint) if dataclasses.is_dataclass(member)]
    choices = choices_of(kinds)
    if not choices:
        return _merge_fields(base, over, kinds[0] if kinds else None)
    if not (isinstance(base.value, dict) and isinstance(over.value, dict)) or base.value.keys() != over.value.keys():
        return over
    inner = {word: _merge_fields(base.value[word], child, choices.get(word)) for word, child in over.value.items()}
    return dataclasses.replace(over, value=inner)


def _merge_fields(base: Node, over: Node, kind: Any) -> Node:
    if not (isinstance(base.value, dict) and isinstance(over.value, dict)):
        return over
    hints = field_hints(kind) if kind is not None else {}
    both = dict(base.value)
    for key, child in over.value.items():
        both[key] = merge(both[key], child, hints.get(key, Any)) if key in both else child
    return dataclasses.replace(over, value=both)


def nearest(word: str, names: Iterable[str]) -> list[str]:
    """At most three known names closest to a misspelt one, all equally close; none if nothing is near.

    Closest by edit distance (a swap of neighbours is one edit, case is ignored), within a third of the longer word's
    length, or two slips where it has four letters; where no name is, by difflib's ratio.
    """
    names = sorted(set(names))
    distance = {name: _edits(word.lower(), name.lower()) for name in names}
    near = [name for name in names if distance[name] <= _slips(max(len(word), len(name)))]
    near = near or difflib.get_close_matches(word, names, n=3, cutoff=0.6)
    best = min((distance[name] for name in near), default=0)
    return [name for name in near if distance[name] == best][:3]


def _slips(length: int) -> int:
    return max(length // 3, 2 if length >= 4 else 1)


def did_you_mean(word: str, names: Iterable[str], what: str = "") -> str:
    """A fix for an unknown name: the nearest ones, or all there are."""
    names = list(names)
    near = nearest(word, names)
    if near:
        return _question(near)
    return f"use one of {', '.join(names)}" if names else f"there is no {what or 'name'} to choose from"


def key_of(field_name: str) -> str:
    """How a field is written: ``lambda_`` -> ``lambda``."""
    return field_name.removesuffix("_")


def word_of(kind: Any) -> str | None:
    """The word of a tagged choice; None for any other type."""
    return getattr(kind, "word", None) if dataclasses.is_dataclass(kind) else None


def choices_of(kinds: Iterable[Any]) -> dict[str, Any]:
    """Word -> class of the tagged choices among some types."""
    return {word: kind for kind in kinds if (word := word_of(kind)) is not None}


@functools.cache
def field_hints(kind: Any) -> dict[str, Any]:
    """Keys of a dataclass, as written, with their resolved type hints."""
    hints = typing.get_type_hints(kind)
    return {key_of(f.name): hints[f.name] for f in dataclasses.fields(kind) if f.init}


@functools.cache
def descriptions(kind: Any) -> dict[str, str]:
    """Key -> its sentence in the ``Attributes:`` section of the class's docstring."""
    section = re.search(r"^Attributes:\n(.*?)(?:\n\S|\Z)", inspect.getdoc(kind) or "", re.S | re.M)
    found: dict[str, str] = {}
    for names, text in re.findall(r"^ {4}([\w, ]+): (.*(?:\n {8}.*)*)", section.group(1) if section else "", re.M):
        for name in names.split(","):
            found[key_of(name.strip())] = " ".join(text.split()).replace("``", "'").rstrip(".")
    return found


def members(hint: Any) -> tuple[Any, ...]:
    """The members of a union, one level, in order; a type that is none is its own only member."""
    return get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)


def expected(hint: Any) -> str:
    """What a type hint admits, in words."""
    return " or ".join(dict.fromkeys(_one_expected(member) for member in members(hint)))


def show_value(value: Any) -> str:
    """A value as a person would write it in a recipe."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, dict):
        return "a mapping with " + (", ".join(cast(dict[str, Any], value)) or "no keys")
    return "a list" if isinstance(value, tuple) else f"text '{value}'" if isinstance(value, str) else str(value)


_PLAIN_WORDS = {float: "a number", int: "a whole number", bool: "true or false", str: "text", type(None): "null"}


def _one_expected(hint: Any) -> str:
    if get_origin(hint) is Literal:
        return " or ".join(str(a) for a in get_args(hint))
    word = word_of(hint)
    if word is not None:
        return f"{word} or {{{word}: ...}}" if field_hints(hint) else word
    if dataclasses.is_dataclass(hint):
        return "a mapping with " + ", ".join(field_hints(hint))
    if get_origin(hint) is tuple:
        args = get_args(hint)
        many = args[-1] is Ellipsis
        return f"a list of {expected(args[0])}" if many else f"a list of {len(args)}: {', '.join(map(expected, args))}"
    if get_origin(hint) in (dict, collections.abc.Mapping):
        return "a mapping"
    return _PLAIN_WORDS.get(hint, "anything")


@dataclass(frozen=True)
class _Spot:
    """Where parsing is: the dotted key, its sentence for messages, and the value that missing keys are taken from."""

    path: str
    about: str = ""
    default: Any = None

    def under(self, key: str, about: str = "", default: Any = None) -> _Spot:
        return _Spot(f"{self.path}.{key}" if self.path else key, about, default)

    def item(self, index: int) -> _Spot:
        return _Spot(f"{self.path}[{index}]", self.about)


def _parse(node: Node, hint: Any, spot: _Spot) -> Any:
    kinds = members(hint)
    if Any in kinds:
        return plain(node)
    if isinstance(node.value, float) and not math.isfinite(node.value):
        raise _refuse(node, spot.path, f"must be finite, got {node.value}", "write a finite number")
    if choices_of(kinds) and isinstance(node.value, str | dict):
        return _choice(node, hint, spot)
    if isinstance(node.value, dict):
        return _mapping(node, node.value, hint, spot)
    if isinstance(node.value, tuple):
        return _list(node, node.value, hint, spot)
    return _scalar(node, hint, spot)


def _mapping(node: Node, items: dict[str, Node], hint: Any, spot: _Spot) -> Any:
    for kind in members(hint):
        if dataclasses.is_dataclass(kind):
            return _record(node, items, kind, spot)
        if get_origin(kind) in (dict, collections.abc.Mapping):
            of, problems, values = get_args(kind)[1], Problems(), dict[str, Any]()
            for key, child in items.items():
                with problems.catching():
                    values[key] = _parse(child, of, spot.under(key))
            problems.raise_found()
            return values
    raise _wrong(node, hint, spot)


def _scalar(node: Node, hint: Any, spot: _Spot) -> Any:
    value, kinds = node.value, members(hint)
    for kind in kinds:
        # ``True == 1`` in Python: a literal counts only in its own type.
        if get_origin(kind) is Literal and any(value == a and type(value) is type(a) for a in get_args(kind)):
            return value
    if type(value) in kinds:
        return value
    if type(value) is int and float in kinds:
        return float(value)
    if value is None:
        problem = f"cannot be null, it needs {expected(hint)}{_note(spot.about)}"
        raise _refuse(node, spot.path, problem, "leave the key out for its default")
    words = [a for kind in kinds if get_origin(kind) is Literal for a in get_args(kind)]
    if isinstance(value, str) and words and str not in kinds:
        fix = did_you_mean(value, map(str, words))
        raise _refuse(node, spot.path, f"unknown word '{value}', expected {expected(hint)}", fix)
    raise _wrong(node, hint, spot)


def _list(node: Node, items: tuple[Node, ...], hint: Any, spot: _Spot) -> tuple[Any, ...]:
    args = next((get_args(kind) for kind in members(hint) if get_origin(kind) is tuple), None)
    if args is None:
        raise _wrong(node, hint, spot)
    many = args[-1] is Ellipsis
    if not many and len(items) != len(args):
        raise _wrong(node, hint, spot, got=f"a list of {len(items)}")
    problems, values = Problems(), list[Any]()
    for i, item in enumerate(items):
        with problems.catching():
            values.append(_parse(item, args[0] if many else args[i], spot.item(i)))
    problems.raise_found()
    return tuple(values)


def _choice(node: Node, hint: Any, spot: _Spot) -> Any:
    """A tagged choice: ``word``, ``{word: value}`` or ``{word: {field: value}}``."""
    choices = choices_of(members(hint))
    if isinstance(node.value, str):
        word, inner = node.value, None
    elif isinstance(node.value, dict) and len(node.value) == 1:
        word, inner = next(iter(node.value.items()))
    else:
        raise _wrong(node, hint, spot)
    kind = choices.get(word)
    if kind is None:
        fix = did_you_mean(word, choices)
        raise _refuse(inner or node, spot.path, f"unknown word '{word}', expected {expected(hint)}", fix)
    spot = spot.under(word, default=spot.default)
    if inner is None:
        return _record(node, {}, kind, spot)
    if isinstance(inner.value, dict):
        return _record(inner, inner.value, kind, spot)
    hints = field_hints(kind)
    if len(hints) != 1:
        raise _wrong(inner, kind, spot)
    return _record(inner, {next(iter(hints)): inner}, kind, spot)


def _record(node: Node, items: dict[str, Node], kind: Any, spot: _Spot) -> Any:
    """A dataclass. A missing key is the parent's default for it (PPO's optimiser is constant), else the class's."""
    hints, about, problems = field_hints(kind), descriptions(kind), Problems()
    meant: set[str] = set()
    for key, child in items.items():
        if key not in hints:
            problem = f"unknown key '{key}'" + (f" in {spot.path}" if spot.path else "")
            problems.found.append(_refuse(child, spot.under(key).path, problem, _fix_unknown(key, kind, hints, items)))
            meant |= {*nearest(key, hints)}
    base = spot.default if type(spot.default) is kind else None
    values: dict[str, Any] = {}
    for entry in dataclasses.fields(kind):
        key = key_of(entry.name)
        default = _default(entry) if base is None else getattr(base, entry.name)
        if key in items:
            with problems.catching():
                values[entry.name] = _parse(items[key], hints[key], spot.under(key, about.get(key, ""), default))
        elif default is not MISSING:
            values[entry.name] = default
        elif key not in meant:  # a misspelt key is said once, not once more as a missing one
            what = about.get(key) or expected(hints[key])
            problems.found.append(_refuse(node, spot.path, f"needs the key '{key}'", f"add {key}: {what}"))
    problems.raise_found()
    return kind(**values)


def _default(entry: dataclasses.Field[Any]) -> Any:
    return entry.default if entry.default_factory is MISSING else entry.default_factory()


def _fix_unknown(key: str, kind: Any, hints: dict[str, Any], items: Iterable[str] = ()) -> str:
    """A near key of this mapping; else the same key where a nested mapping knows it; else every key there is.

    Of equally near ones, those that are written already are not what was meant.
    """
    near = nearest(key, hints)
    near = [name for name in near if name not in items] or near
    if not near or _edits(key.lower(), near[0].lower()) > 1:
        near = sorted(_deeper(kind, key), key=len)[:3] or near
    return _question(near) if near else f"known keys: {', '.join(hints)}"


def _deeper(kind: Any, key: str, depth: int = 3) -> list[str]:
    """Dotted names under which nested dataclasses do know a key (``lr`` -> ``optimizer.lr``)."""
    found: list[str] = []
    for name, hint in field_hints(kind).items():
        for inner in members(hint):
            if dataclasses.is_dataclass(inner) and word_of(inner) is None and depth:
                found += [f"{name}.{key}"] if key in field_hints(inner) else []
                found += [f"{name}.{rest}" for rest in _deeper(inner, key, depth - 1)]
    return list(dict.fromkeys(found))


def _wrong(node: Node, hint: Any, spot: _Spot, got: str = "") -> RecipeError:
    problem = f"expected {expected(hint)}{_note(spot.about)}, got {got or show_value(node.value)}"
    fix = _fix_type(node.value, members(hint)) or f"write {expected(hint)}"
    return _refuse(node, spot.path, problem, fix)


def _fix_type(value: Any, kinds: tuple[Any, ...]) -> str:
    lists = any(get_origin(kind) is tuple for kind in kinds)
    if lists and not isinstance(value, dict | tuple):
        return f"write [{show_value(value).removeprefix('text ')}]"
    if isinstance(value, str) and (int in kinds or float in kinds):
        return "write the number without quotes, underscores or units"
    if isinstance(value, float) and int in kinds:
        return f"write {int(value)}" if value.is_integer() else "round it to a whole number"
    if isinstance(value, bool | int | float) and str in kinds:
        return "put it in quotes to make it text"
    return ""


def _question(names: list[str]) -> str:
    return "did you mean " + " or ".join(f"'{name}'" for name in names) + "?"


def _refuse(node: Node, path: str, problem: str, fix: str) -> RecipeError:
    return RecipeError(problem, where=dataclasses.replace(node.place, key=path), fix=fix)


def _note(about: str) -> str:
    return f" ({about})" if about else ""


def _edits(a: str, b: str) -> int:
    """Edit distance with swaps of neighbours (optimal string alignment)."""
    before, row = [0] * (len(b) + 1), list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        two_before, before, row = before, row, [i]
        for j, y in enumerate(b, 1):
            best = min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (x != y))
            if i > 1 and j > 1 and x == b[j - 2] and a[i - 2] == y:
                best = min(best, two_before[j - 2] + 1)
            row.append(best)
    return row[-1]
