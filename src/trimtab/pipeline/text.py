"""Recipes as text: YAML 1.2 into a tree with places, and values back into text. Torch-free.

PyYAML reads YAML 1.1, in which ``on`` is true, ``010`` is eight and ``1e-6`` is text. Only its scanner and composer are
used here; scalars follow the core schema of YAML 1.2. A recipe is data for people, so anchors, tags, several documents
and twice the same key are refused instead of being given a meaning.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from trimtab.errors import RecipeError, Where
from trimtab.schema import Node, Scalar

_DEEPEST = 20
_LARGEST = 1 << 20
_NULL = re.compile(r"~|null|Null|NULL|")
_BOOL = re.compile(r"true|True|TRUE|false|False|FALSE")
_INT = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_UNPRINTABLE = re.compile("[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]")
_BARE = re.compile(r"[A-Za-z0-9_./][\w./+-]*", re.ASCII)


def read_recipe_file(path: str | Path) -> Node:
    """The tree of a recipe file.

    Raises:
        RecipeError: no such file, not UTF-8, not YAML, or YAML that a recipe does not use.
    """
    path = Path(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise RecipeError(f"cannot read the recipe: {error.strerror}", where=Where(str(path))) from None
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise RecipeError(f"not UTF-8 at byte {error.start}", where=Where(str(path)), fix="save it as UTF-8") from None
    return read_recipe_text(text, str(path))


def read_recipe_text(text: str, file: str) -> Node:
    """The tree of a recipe: one YAML document whose root is a mapping. ``file`` is its name in messages."""
    node = _compose(text, file)
    if node is None:
        raise RecipeError("the recipe is empty", where=Where(file, 1, 1), fix="start with name: and stages:")
    if not isinstance(node.value, dict):
        raise RecipeError("a recipe is a mapping of keys", where=node.where, fix="start with name: and stages:")
    return node


def read_value(text: str, where: Where) -> Node:
    """The tree of one value as written on a command line; ``where`` (``override 1``) is every node's place."""
    try:
        node = _compose(text, where.file)
    except RecipeError as error:
        raise RecipeError(error.problem, where=where, fix="quote the value, or check its brackets") from None
    return _placed(node or Node(None), where, where.file)


def _placed(node: Node, where: Where, origin: str) -> Node:
    value = node.value
    if isinstance(value, dict):
        value = {key: _placed(child, where, origin) for key, child in value.items()}
    elif isinstance(value, tuple):
        value = tuple(_placed(child, where, origin) for child in value)
    return Node(value, where, where, origin)


def _compose(text: str, file: str) -> Node | None:
    if len(text) > _LARGEST:
        raise RecipeError(f"{len(text)} characters are more than a recipe has", where=Where(file), fix="shorten it")
    try:
        _refuse_what_recipes_do_not_use(text, file)
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        raise _not_yaml(error, text, file) from None
    except yaml.YAMLError as error:
        line = text.count("\n", 0, getattr(error, "position", 0)) + 1
        raise RecipeError("an unprintable character", where=Where(file, line), fix="remove it") from None
    return None if root is None else _node(root, file, None)


def _refuse_what_recipes_do_not_use(text: str, file: str) -> None:
    """Anchors, aliases, tags, second documents and deep nesting, refused on the event stream before anything grows."""
    depth = documents = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        where = _where(event.start_mark, file)
        documents += isinstance(event, yaml.DocumentStartEvent)
        if documents > 1:
            raise RecipeError("a second document", where=where, fix="remove '---'; one file is one recipe")
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise RecipeError("recipes have no anchors ('&') and aliases ('*')", where=where, fix="write the value out")
        if tag := getattr(event, "tag", None):
            raise RecipeError(f"recipes have no tags ('{tag}')", where=where, fix="write the plain value")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > _DEEPEST:
            raise RecipeError(f"nested more than {_DEEPEST} deep", where=where, fix="flatten it")


def _not_yaml(error: yaml.MarkedYAMLError, text: str, file: str) -> RecipeError:
    mark = error.problem_mark or error.context_mark
    problem, fix = error.problem or "not YAML", "check the indentation, the quotes and the brackets here"
    if "'\\t'" in problem:
        problem, fix = "a tab where YAML wants spaces", "indent with spaces"
    elif "mapping values are not allowed" in problem:
        problem, fix = "a ':' where no key can be", "indent it as its neighbours, or put the text in quotes"
    return RecipeError(problem, where=_where(mark, file) if mark else Where(file), fix=fix)


def _where(mark: Any, file: str) -> Where:
    return Where(file, mark.line + 1, mark.column + 1)


def _node(node: yaml.Node, file: str, key_where: Where | None) -> Node:
    where = _where(node.start_mark, file)
    if isinstance(node, yaml.MappingNode):
        return Node(_mapping(node, file), where, key_where)
    if isinstance(node, yaml.SequenceNode):
        return Node(tuple(_node(item, file, None) for item in node.value), where, key_where)
    # ``style`` is None for a plain scalar; a quoted one is text whatever it looks like.
    quoted = isinstance(node, yaml.ScalarNode) and node.style is not None
    return Node(node.value if quoted else _scalar(node.value), where, key_where)


def _mapping(node: yaml.MappingNode, file: str) -> dict[str, Node]:
    found: dict[str, Node] = {}
    for key, value in node.value:
        where = _where(key.start_mark, file)
        name = key.value
        if not isinstance(name, str) or (key.style is None and not isinstance(_scalar(name), str)):
            raise RecipeError("a key must be text", where=where, fix="put it in quotes")
        if name in found:
            first = found[name].place
            raise RecipeError(
                f"the key '{name}' stands twice in this mapping, first in line {first.line}",
                where=Where(where.file, where.line, where.column, name),
                fix="remove one of them",
            )
        found[name] = _node(value, file, where)
    return found


def _scalar(text: str) -> Scalar:
    """A plain scalar by the core schema of YAML 1.2 (section 10.3.2)."""
    if _NULL.fullmatch(text):
        return None
    if _BOOL.fullmatch(text):
        return text.lower() == "true"
    if _INT.fullmatch(text) and len(text) < 100:
        # Python's int() reads 0o and 0x by itself with base 0, but refuses 010, which is ten in YAML 1.2.
        return int(text, 0) if text[:2] in ("0o", "0x") else int(text)
    return float(text.replace(".inf", "inf").replace(".nan", "nan")) if _FLOAT.fullmatch(text.lower()) else text


def write_scalar(value: Scalar) -> str:
    """A scalar as this module reads it back: text is quoted wherever it would read as something else."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, str):
        bare = _BARE.fullmatch(value) and isinstance(_scalar(value), str)
        quoted = json.dumps(value, ensure_ascii=False)
        return value if bare else _UNPRINTABLE.sub(lambda found: f"\\u{ord(found[0]):04x}", quoted)
    return repr(value).replace("inf", ".inf")


def write_flow(value: Any) -> str:
    """A value on one line: ``[normalise, {clip: {limit: 0.8}}]``."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{write_scalar(k)}: {write_flow(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(write_flow, value)) + "]"
    return write_scalar(value)
