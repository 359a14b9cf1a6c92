"""YAML 1.2 in, with places; nothing but plain data gets through; what is written reads back."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, strategies as st

from trimtab.errors import RecipeError, Where
from trimtab.pipeline.text import read_recipe_file, read_recipe_text, read_value, write_flow, write_scalar
from trimtab.schema import plain


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-6", 1e-6),
        ("1E6", 1e6),
        (".5", 0.5),
        ("-3.", -3.0),
        ("+12", 12),
        ("010", 10),
        ("0o10", 8),
        ("0xff", 255),
        ("on", "on"),
        ("no", "no"),
        ("Yes", "Yes"),
        ("true", True),
        ("False", False),
        ("~", None),
        ("null", None),
        ("1_000", "1_000"),
        ("12:30:45", "12:30:45"),
        ("2024-01-01", "2024-01-01"),
        ("1.2.3", "1.2.3"),
        ("'1'", "1"),
        ('"null"', "null"),
        ("=", "="),
        ("<<", "<<"),
        ("e5", "e5"),
        (".", "."),
    ],
)
def test_scalars_are_those_of_yaml_1_2(text: str, value: Any) -> None:
    got = plain(read_recipe_text(f"a: {text}", "r"))["a"]
    assert got == value and type(got) is type(value)


@pytest.mark.parametrize(
    ("text", "place", "says"),
    [
        ("a: &x 1\nb: *x", "1:4", "no anchors"),
        ("a: &x [1, 1]\nb: &y [*x, *x]\nc: [*y, *y]", "1:4", "no anchors"),
        ("a: !!python/object:os.system x", "1:4", "no tags"),
        ("a: !!str 1", "1:4", "no tags"),
        ("a:\n\tb: 1", "2:1", "a tab"),
        ("a: 1\n---\nb: 2", "2:1", "second document"),
        ("- a\n- b", "1:1", "is a mapping"),
        ("just text", "1:1", "is a mapping"),
        ("", "1:1", "empty"),
        ("# only a comment\n", "1:1", "empty"),
        ("a:\n  b: 1\n  c: 2\n  b: 3", "4:3 key 'b'", "stands twice in this mapping, first in line 2"),
        ("1: x", "1:1", "a key must be text"),
        ("? [a]\n: b", "1:3", "a key must be text"),
        ("{a: 1}: b", "1:1", "a key must be text"),
        ("null: b", "1:1", "a key must be text"),
        ("a: b: c", "1:5", "a ':' where no key can be"),
        ("a: [1", "1:6", "expected ',' or ']'"),
        ("a: 'open", "1:9", "unexpected end"),
        ("a: \x07", "1", "unprintable"),
        ("[" * 5000, "1:21", "nested more than"),
    ],
)
def test_refused_at_its_place(text: str, place: str, says: str) -> None:
    with pytest.raises(RecipeError) as error:
        read_recipe_text(text, "r.yaml")
    assert str(error.value).startswith(f"r.yaml:{place}: ") and says in str(error.value)
    assert error.value.fix


def test_files_that_are_no_text(tmp_path: Any) -> None:
    (tmp_path / "r.yaml").write_bytes(b"a: \xff")
    with pytest.raises(RecipeError, match="not UTF-8 at byte 3"):
        read_recipe_file(tmp_path / "r.yaml")
    with pytest.raises(RecipeError, match="Is a directory"):
        read_recipe_file(tmp_path)
    (tmp_path / "r.yaml").write_bytes(b"\xef\xbb\xbfa: 1\r\nb: 2\r\n")
    assert plain(read_recipe_file(tmp_path / "r.yaml")) == {"a": 1, "b": 2}
    with pytest.raises(RecipeError, match="more than a recipe has"):
        read_recipe_text("a: " + "x" * (1 << 21), "r")


def test_places_count_from_one_in_characters() -> None:
    tree = read_recipe_text('é: "…"\nb: {c: [1, x]}\n', "r")
    assert isinstance(tree.value, dict)
    b = tree.value["b"]
    assert (str(b.key_where), str(b.where)) == ("r:2:1", "r:2:4")
    assert isinstance(b.value, dict) and isinstance(b.value["c"].value, tuple)
    assert str(b.value["c"].value[1].where) == "r:2:12"


def test_a_broken_override_names_itself() -> None:
    where = Where("override 2", key="a.b")
    with pytest.raises(RecipeError, match=r"^override 2 key 'a\.b': expected ',' or '\]'"):
        read_value("[1", where)
    assert read_value("{x: 1e-3}", where).origin == "override 2"


TEXTS = st.text(st.characters(exclude_categories=["Cs"])) | st.from_regex(r"[-+.0-9eExo_nulltrue:#&*!|>%@`'\" ]{1,8}")
SCALARS = st.none() | st.booleans() | st.integers(-(10**30), 10**30) | st.floats(allow_nan=False) | TEXTS
VALUES = st.recursive(SCALARS, lambda v: st.lists(v, max_size=3) | st.dictionaries(TEXTS, v, max_size=3), max_leaves=8)


@given(VALUES)
def test_what_is_written_reads_back(value: Any) -> None:
    text = f"a: {write_flow(value)}"
    got = plain(read_recipe_text(text, "r"))["a"]
    assert got == value and repr(got) == repr(value)


@pytest.mark.parametrize("text", ["smollm2-135m-q4", "films.prompts", "a/b_c.yaml", "ppo-max"])
def test_ordinary_words_stay_bare(text: str) -> None:
    assert write_scalar(text) == text
