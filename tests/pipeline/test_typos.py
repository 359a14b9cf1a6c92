"""Misspelt keys, words and names of shipped recipes: how often the right one is suggested, and where.

Each shipped recipe is written out in full first, so that every key of every stage can be misspelt, not only those that
somebody happened to write.
"""

from __future__ import annotations

import dataclasses
import functools
import random
import string
from collections.abc import Iterator

from trimtab.errors import RecipeError
from trimtab.pipeline.missing import refuse_missing
from trimtab.pipeline.recipe import load, resolve, shipped
from trimtab.pipeline.show import recipe_text
from trimtab.pipeline.text import read_recipe_text
from trimtab.schema import Node, RecipeErrors

SEED = 20240229
EACH = 100
"""Typos of one edit, and as many of two."""

ENOUGH = 0.9
FREE = {"name"}
"""Keys whose value may be any text."""


@dataclasses.dataclass(frozen=True)
class Spot:
    """One word of a recipe that can be misspelt: a key, or a value from a known set."""

    recipe: str
    path: tuple[str, ...]
    word: str
    is_key: bool


@functools.cache
def full(name: str) -> Node:
    return read_recipe_text(recipe_text(load(name)), name)


def spots(name: str) -> Iterator[Spot]:
    yield from _spots(name, full(name), ())


def _spots(name: str, node: Node, path: tuple[str, ...]) -> Iterator[Spot]:
    if isinstance(node.value, dict):
        for key, child in node.value.items():
            # Nobody reads the last stage, so any name will do for it.
            if (*path, key) != ("stages", "verdict"):
                yield Spot(name, (*path, key), key, True)
            yield from _spots(name, child, (*path, key))
    elif isinstance(node.value, tuple):
        for i, child in enumerate(node.value):
            yield from _spots(name, child, (*path, str(i)))
    elif isinstance(node.value, str) and path[-1] not in FREE:
        for word in node.value.split("."):
            yield Spot(name, path, word, False)


def edit(word: str, draw: random.Random) -> str:
    """One slip of the fingers: a letter too few, too many or wrong, or two swapped."""
    at = draw.randrange(len(word))
    letter = draw.choice(string.ascii_lowercase)
    forms = [word[:at] + word[at + 1 :], word[:at] + letter + word[at:], word[:at] + letter + word[at + 1 :]]
    if at + 1 < len(word):
        forms.append(word[:at] + word[at + 1] + word[at] + word[at + 2 :])
    return draw.choice(forms)


def misspelt(spot: Spot, edits: int, draw: random.Random) -> str:
    while True:
        typo = spot.word
        for _ in range(edits):
            typo = edit(typo, draw) if typo else typo
        if typo != spot.word and typo[:1].isalpha():
            return typo


def planted(node: Node, spot: Spot, typo: str, path: tuple[str, ...] = ()) -> Node:
    """The tree with the typo in it; every place stays as it was."""
    if isinstance(node.value, dict):
        found = {}
        for key, child in node.value.items():
            here = (*path, key)
            name = typo if spot.is_key and here == spot.path else key
            found[name] = planted(child, spot, typo, here)
        return dataclasses.replace(node, value=found)
    if isinstance(node.value, tuple):
        items = (planted(child, spot, typo, (*path, str(i))) for i, child in enumerate(node.value))
        return dataclasses.replace(node, value=tuple(items))
    if not spot.is_key and path == spot.path:
        words = [typo if word == spot.word else word for word in str(node.value).split(".")]
        return dataclasses.replace(node, value=".".join(words))
    return node


def at(node: Node, path: tuple[str, ...]) -> Node:
    for part in path:
        assert isinstance(node.value, dict | tuple)
        node = node.value[part] if isinstance(node.value, dict) else node.value[int(part)]
    return node


def outcome(spot: Spot, typo: str) -> str:
    """``right``, or what went wrong."""
    tree = full(spot.recipe)
    node = at(tree, spot.path)
    try:
        refuse_missing(resolve(planted(tree, spot, typo)))
    except RecipeError as error:
        errors = error.errors if isinstance(error, RecipeErrors) else (error,)
    else:
        return "accepted"
    # A name of one's own that is misspelt where it is given is missing where it is used: there the typo is the guess.
    wanted = str(node.value).split(".")
    own = spot.is_key and len(spot.path) == 2 and spot.path[0] in ("models", "data", "stages")
    guess, place = (typo, None) if own else (spot.word, node.key_where if spot.is_key else node.where)
    for found in errors:
        where = found.where
        # As a name ('epochs'), with its parent ('critic.start'), or within a whole reference (films.prompts).
        suggested = any(f"'{guess}{end}" in found.fix for end in "'.") or f".{guess}'" in found.fix
        suggested = (suggested and "did you mean" in found.fix) or found.fix == f"write {'.'.join(wanted)}"
        if suggested and where is not None and (place is None or (where.file, where.line) == (place.file, place.line)):
            return "right"
    return f"{spot.path}: {typo!r} for {spot.word!r}: {errors[0].problem}; {errors[0].fix}"


def drawn() -> list[tuple[Spot, str]]:
    draw = random.Random(SEED)
    every = [spot for name in shipped() for spot in spots(name)]
    known = {spot.word for spot in every}
    made: list[tuple[Spot, str]] = []
    for edits in (1, 2):
        while len(made) < EACH * edits:
            spot = draw.choice(every)
            typo = misspelt(spot, edits, draw)
            if typo not in known:  # another word of the language is no typo
                made.append((spot, typo))
    return made


def test_nine_typos_in_ten_are_answered_with_the_right_word() -> None:
    cases = drawn()
    assert len(cases) == 2 * EACH and {edits.is_key for edits, _ in cases} == {True, False}
    wrong = [said for spot, typo in cases if (said := outcome(spot, typo)) != "right"]
    share = 1 - len(wrong) / len(cases)
    print(f"\nright word suggested for {share:.1%} of {len(cases)} typos")
    assert share >= ENOUGH, "\n".join([f"only {share:.1%}", *wrong])
    assert "accepted" not in wrong
