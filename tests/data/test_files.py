"""Rows out of files of every format, with the place of each."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pyarrow
import pyarrow.parquet as parquet
import pytest

from trimtab.data.files import find_files, read_rows
from trimtab.errors import DataError

ROWS = [{"prompt": "a\u2028b\u0085c\x0bd", "completion": "é"}, {"prompt": "two\nlines", "completion": '"quoted", x'}]


def values(path: Path) -> list[dict]:
    rows = list(read_rows(path))
    assert all(not row.problem for row in rows), rows
    return [row.values for row in rows]


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def jsonl(rows: list[dict]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


@pytest.mark.parametrize("name", ["x.jsonl", "x.ndjson", "x.jsonl.gz", "X.JSONL"])
def test_jsonl_lines_end_at_newline_only(tmp_path: Path, name: str) -> None:
    assert values(write(tmp_path / name, jsonl(ROWS))) == ROWS


@pytest.mark.parametrize("ending", ["\r\n", "\n\n", "\n"])
def test_jsonl_with_other_endings_blank_lines_a_bom_or_no_last_newline(tmp_path: Path, ending: str) -> None:
    text = "\ufeff" + ending.join(json.dumps(row) for row in ROWS)
    assert values(write(tmp_path / "x.jsonl", text.encode())) == ROWS


@pytest.mark.parametrize("name", ["x.json", "x.json.gz"])
def test_json_is_a_list(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / name, json.dumps(ROWS, ensure_ascii=False, indent=1).encode())
    assert values(path) == ROWS
    assert str(list(read_rows(path))[1].where).endswith(f"{name} key '[1]'")


@pytest.mark.parametrize(("name", "sep"), [("x.csv", ","), ("x.tsv", "\t"), ("x.csv.gz", ",")])
def test_csv_cells_may_hold_lines_and_long_texts(tmp_path: Path, name: str, sep: str) -> None:
    long = "y" * 200_000
    cells = [["prompt", "completion"], ["a\u2028b", "é"], ['"two\nlines"', long], ["last", '"say ""hi"""']]
    path = write(tmp_path / name, "\n".join(sep.join(row) for row in cells).encode())
    rows = list(read_rows(path))
    assert [list(row.values.values()) for row in rows] == [
        ["a\u2028b", "é"],
        ["two\nlines", long],
        ["last", 'say "hi"'],
    ]
    assert [row.where.line for row in rows] == [2, 3, 5], "the line a row starts on"


def test_parquet_keeps_lists_and_structs(tmp_path: Path) -> None:
    rows = [{"messages": [{"role": "user", "content": f"x\u2028{i}"}], "n": i} for i in range(3000)]
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "x.parquet")
    read = list(read_rows(tmp_path / "x.parquet"))
    assert [row.values for row in read] == rows
    assert read[2500].where.key == "[2500]"


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (b'{"prompt": "x"', "not JSON"),
        (b'["x"]', "expected an object with columns, got list"),
        (b'{"prompt": NaN}', "NaN is not JSON"),
        (b'{"prompt": 1, "prompt": 2}', "'prompt' stands twice"),
        (b'{"prompt": "\xff"}', "not UTF-8"),
    ],
)
def test_a_bad_line_is_a_row_with_a_problem_and_the_others_are_read(tmp_path: Path, line: bytes, why: str) -> None:
    path = write(tmp_path / "x.jsonl", b'{"prompt": "a"}\n' + line + b'\n{"prompt": "b"}\n')
    good, bad, last = read_rows(path)
    assert (good.values, last.values) == ({"prompt": "a"}, {"prompt": "b"})
    assert why in bad.problem
    assert str(bad.where).endswith("x.jsonl:2")


def test_a_csv_row_of_another_width_is_a_row_with_a_problem(tmp_path: Path) -> None:
    path = write(tmp_path / "x.csv", b"a,b\n1,2\n3\n4,5,6\n")
    assert [row.problem for row in read_rows(path)] == [
        "",
        "1 cells under 2 column names",
        "3 cells under 2 column names",
    ]


@pytest.mark.parametrize(
    ("name", "data", "why"),
    [
        ("x.txt", b"hello", "unknown format"),
        ("x.parquet.gz", b"", "unknown format"),
        ("x.json", b'{"a": 1}', "expected a list"),
        ("x.json", b'{"a": 1,\n"b": 2}\n{"a": 2}', "not JSON"),
        ("x.csv", b"a,a\n1,2\n", "same name"),
        ("x.csv", b'a,b\n"1,2\n', "cannot be read"),
        ("x.csv", b"a,b\n\xff,2\n", "cannot be read"),
        ("x.parquet", b"PAR1 no", "cannot be read"),
    ],
)
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, name: str, data: bytes, why: str) -> None:
    path = write(tmp_path / name, data)
    with pytest.raises(DataError, match=why) as refused:
        list(read_rows(path))
    assert str(path) in str(refused.value)
    assert refused.value.fix


def test_a_cut_gzip_file_is_not_taken_for_a_short_one(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl.gz"
    path.write_bytes(gzip.compress(jsonl(ROWS * 500))[:-20])
    with pytest.raises(DataError, match="whole"):
        list(read_rows(path))


def test_files_are_found_by_path_pattern_and_list_in_a_fixed_order(tmp_path: Path) -> None:
    for name in ("b.jsonl", "a.jsonl", "c.csv"):
        (tmp_path / name).touch()
    names = lambda source: [path.name for path in find_files(source, tmp_path)]  # noqa: E731
    assert names("*.jsonl") == ["a.jsonl", "b.jsonl"]
    assert names(("c.csv", "*.jsonl", "a.jsonl")) == ["c.csv", "a.jsonl", "b.jsonl"]
    (tmp_path / "odd[1].jsonl").touch()
    assert names("odd[1].jsonl") == ["odd[1].jsonl"], "an existing file is not a pattern"
    for missing, why in (("no.jsonl", "no file matches"), (".", "is a folder")):
        with pytest.raises(DataError, match=why):
            names(missing)


def test_lines_under_the_name_of_a_list_are_read_and_counted(tmp_path: Path) -> None:
    path = write(tmp_path / "x.json", b'\xef\xbb\xbf{"a": 1}\n{"a": 2}\n{"a"\n')
    rows = list(read_rows(path))
    assert [row.values for row in rows] == [{"a": 1}, {"a": 2}, {}]
    assert {row.notes for row in rows} == {("rows of a .json file that holds one object per line",)}
    assert rows[2].where.line == 3 and "not JSON" in rows[2].problem
