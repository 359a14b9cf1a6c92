"""Every known-bad file is diagnosed: its name, the line, the key, what is wrong, and what to do about it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from fixtures.bad_data.cases import READ, RENDERED, Case
from trimtab.data.config import DataConfig, Fail, Skip
from trimtab.data.load import load
from trimtab.errors import DataError

ALL = (*READ, *RENDERED)


def test_there_are_more_than_fifty_and_no_two_have_one_name() -> None:
    assert len(ALL) >= 50
    assert len({case.file for case in ALL}) == len(ALL)


def write(case: Case, folder: Path) -> DataConfig:
    (folder / case.file).write_bytes(case.data)
    return DataConfig(str(folder / case.file), heldout=0.0, **case.keys)


def check(case: Case, error: DataError) -> None:
    assert case.says in error.problem or re.search(re.escape(case.says), str(error))
    assert error.where is not None and error.fix
    if not case.key.startswith("columns."):
        assert case.file in error.where.file
    assert error.where.line == case.line
    assert error.where.key == case.key


@pytest.mark.parametrize("case", READ, ids=lambda case: case.file)
def test_a_bad_file_is_diagnosed_by_name(case: Case, tmp_path: Path) -> None:
    with pytest.raises(DataError) as refused:
        load("bad", write(case, tmp_path), 0)
    check(case, refused.value)


@pytest.mark.parametrize("case", [case for case in READ if case.line], ids=lambda case: case.file)
def test_a_bad_row_may_be_left_out_and_is_then_listed(case: Case, tmp_path: Path) -> None:
    """The fix that the message proposes works; a file that is broken as a whole has none."""
    config = write(case, tmp_path)
    try:
        data = load("bad", DataConfig(**{**vars(config), "on_bad_rows": Skip(0.5)}), 0)
    except DataError as error:
        assert "rows cannot be used" not in error.problem, "this one is of the file, not of a row"
        return
    account = data.account()
    assert account["rows_in"] == 2 and account["left_out"] == 1 and sum(account["used"].values()) == 1
    assert account["left_out_rows"][0]["line"] == case.line


@pytest.mark.parametrize("case", RENDERED, ids=lambda case: case.file)
def test_a_row_that_a_template_refuses_is_named_by_file_and_line(case: Case, tmp_path: Path) -> None:
    from data.test_templates import MORE
    from data.tiny import tokenizer
    from trimtab.data.template import Renderer
    from trimtab.train.rows import StageRows
    from trimtab.train.stage import StageContext

    data = load("bad", write(case, tmp_path), 0)
    assert data.on_bad_rows == Fail()
    renderer = Renderer(tokenizer(eos="</s>", more=MORE), case.template)
    rows = StageRows(StageContext("sft", tmp_path, 0, {}, lambda name: data))
    with pytest.raises(DataError) as refused:
        rows.take("bad.demonstrations", "train", renderer.demonstration, purpose="training")
    check(case, refused.value)
    assert "1 of 2 rows cannot be used" in refused.value.problem
