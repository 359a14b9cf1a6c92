"""Public files as people find them. Twins on rows written here: test_columns.py, test_load.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from data.tables import files, table
from trimtab.data.config import DataConfig, Skip
from trimtab.data.load import load
from trimtab.data.split import prompt_key
from trimtab.errors import DataError

RASBT = "rasbt__LLMs-from-scratch/ch07/04_preference-tuning-with-dpo/instruction-data-with-preference.json"
GSM8K = "openai__grade-school-math/grade_school_math/data/{}.jsonl.gz"
KTO = "hiyouga__LLaMA-Factory/data/kto_en_demo.json.gz"
CSV = "f__awesome-chatgpt-prompts/prompts.csv"
LISTED = "josejg__instruction_following_eval/instruction_following_eval/data/input_data.jsonl"


@pytest.mark.parametrize(
    ("file", "columns", "kind", "rows", "reasons"),
    [
        (
            RASBT,
            {"prompt": "instruction"},
            "comparisons",
            1100,
            {"the same answer stands at two ranks (identical chosen and rejected)": 6},
        ),
        (GSM8K.format("train"), {"prompt": "question", "completion": "answer"}, "demonstrations", 7473, {}),
        (GSM8K.format("test"), {"prompt": "question", "completion": "answer"}, "demonstrations", 1319, {}),
        (KTO, {}, "feedback", 300, {}),
        (CSV, {}, "prompts", 171, {}),
        (LISTED, {}, "prompts", 541, {}),
    ],
)
def test_public_files_are_read_and_accounted_for(
    test_data: Path, file: str, columns: dict[str, str], kind: str, rows: int, reasons: dict[str, int]
) -> None:
    data = load("public", DataConfig(file, columns=columns, on_bad_rows=Skip(0.01)), 0, base=test_data)
    account = data.account()
    assert account["rows_in"] == rows
    assert account["left_out_by_reason"] == reasons
    train, held = data.rows(kind), data.rows(kind, "heldout")
    assert len(train) + len(held) == rows - sum(reasons.values())
    assert 0.02 * rows <= len(held) <= 0.08 * rows
    assert not {prompt_key(row) for row in train} & {prompt_key(row) for row in held}


def test_the_table_of_real_files_is_the_one_on_the_page(test_data: Path) -> None:
    page = Path(__file__).resolve().parents[2] / "docs" / "data.md"
    shown = page.read_text(encoding="utf-8").partition("## Real files")[2]
    assert [line for line in shown.splitlines(keepends=True) if line.startswith("|")] == table(test_data).splitlines(
        keepends=True
    )


def test_a_prompt_of_a_public_file_is_never_on_both_sides(test_data: Path) -> None:
    checked = 0
    for path in files(test_data):
        try:
            data = load("public", DataConfig(str(path), on_bad_rows=Skip(0.1), heldout=0.2), 0)
        except DataError:
            continue
        ((kind, _), *_) = data.records
        sides = [{prompt_key(row) for row in data.rows(kind, split)} for split in ("train", "heldout")]
        assert sides[0] and not sides[0] & sides[1], path.name
        assert sides[1] or len(sides[0]) < 30, path.name
        checked += 1
    assert checked >= 15
