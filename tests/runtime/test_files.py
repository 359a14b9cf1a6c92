"""Files are whole or absent; ledgers come back to a mark exactly."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import pytest

from trimtab.errors import CheckpointError, DataError
from trimtab.runtime import files
from trimtab.runtime.files import EMPTY_MARK, Ledger, atomic_dir, read_json, remove_leftovers, write_atomic, write_json


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_write_atomic_replaces_and_leaves_nothing_else(tmp_path: Path) -> None:
    write_atomic(tmp_path / "a", "é")
    write_atomic(tmp_path / "a", b"\x00\r\n")
    assert (tmp_path / "a").read_bytes() == b"\x00\r\n"
    assert names(tmp_path) == {"a"}


def test_write_atomic_keeps_the_old_file_when_the_disk_refuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_atomic(tmp_path / "a", "old")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_atomic(tmp_path / "a", "new")
    assert (tmp_path / "a").read_text() == "old"
    assert names(tmp_path) == {"a"}


def test_everything_is_on_the_disk_before_it_gets_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The order that survives a power cut: every file, every folder inside, rename, then the parent."""
    calls: list[str] = []
    real = os.fsync

    def fsync(descriptor: int) -> None:
        path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        calls.append("parent" if path == tmp_path else path.name.split(".tmp-")[0])
        real(descriptor)

    rename = os.rename
    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "rename", lambda a, b: (calls.append("rename"), rename(a, b)))
    with atomic_dir(tmp_path / "d") as folder:
        (folder / "inner").mkdir()
        (folder / "inner" / "x").write_text("1")
        (folder / "y").write_text("2")
    assert sorted(calls[:4]) == [".d", "inner", "x", "y"]
    assert calls[4:] == ["rename", "parent"]


def test_atomic_dir_replaces_or_leaves_untouched(tmp_path: Path) -> None:
    for text in ("1", "2"):
        with atomic_dir(tmp_path / "d") as folder:
            (folder / text).write_text(text)
    assert names(tmp_path / "d") == {"2"}
    with pytest.raises(KeyboardInterrupt), atomic_dir(tmp_path / "d") as folder:
        (folder / "3").write_text("3")
        raise KeyboardInterrupt
    assert names(tmp_path / "d") == {"2"}
    assert names(tmp_path) == {"d"}


def test_leftovers_of_a_kill(tmp_path: Path) -> None:
    """Killed while writing: the half goes. Killed between the two renames: the old folder comes back."""
    (tmp_path / ".model.tmp-123").mkdir()
    (tmp_path / ".model.tmp-123" / "x").write_text("half")
    (tmp_path / ".model.old-123").mkdir()
    (tmp_path / ".model.old-123" / "x").write_text("old")
    (tmp_path / ".state.json.tmp-9").write_text("half")
    (tmp_path / ".lock").write_text("")
    assert len(remove_leftovers(tmp_path)) == 3
    assert names(tmp_path) == {"model", ".lock"}
    assert (tmp_path / "model" / "x").read_text() == "old"
    (tmp_path / ".model.old-124").mkdir()
    remove_leftovers(tmp_path)
    assert (tmp_path / "model" / "x").read_text() == "old"
    assert names(tmp_path) == {"model", ".lock"}


def test_json_errors_name_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"b": [1, "é"], "a": None})
    assert read_json(path) == {"b": [1, "é"], "a": None}
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(path, {"x": float("nan")})
    assert read_json(path) == {"b": [1, "é"], "a": None}
    path.write_text('{"a": 1,\n "b" 2}')
    with pytest.raises(DataError, match=r"a\.json:2:6"):
        read_json(path)
    with pytest.raises(DataError, match=r"none\.json: there is no such file"):
        read_json(tmp_path / "none.json")


def test_a_mark_is_the_length_and_hash_of_the_file(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "l.jsonl")
    assert ledger.mark() == EMPTY_MARK
    for i in range(3):
        ledger.append({"i": i, "text": "a\u2028b"})
        data = (tmp_path / "l.jsonl").read_bytes() if ledger.mark() else b""
        assert ledger.mark() == {"length": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    assert [json.loads(line)["i"] for line in data.decode().split("\n")[:-1]] == [0, 1, 2]


def test_a_resumed_ledger_has_the_bytes_of_an_unbroken_one(tmp_path: Path) -> None:
    whole = Ledger(tmp_path / "whole.jsonl")
    for i in range(5):
        whole.append({"i": i})
    with Ledger(tmp_path / "l.jsonl") as ledger:
        for i in range(3):
            ledger.append({"i": i})
        mark = ledger.mark()
        ledger.append({"i": "lost"})
    with open(tmp_path / "l.jsonl", "ab") as file:
        file.write(b'{"i": "half a li')  # what a kill leaves
    again = Ledger(tmp_path / "l.jsonl")
    again.cut_back(json.loads(json.dumps(mark)))
    for i in (3, 4):
        again.append({"i": i})
    assert again.mark() == whole.mark()
    assert (tmp_path / "l.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
    again.cut_back(EMPTY_MARK)
    assert (tmp_path / "l.jsonl").read_bytes() == b""


def test_a_changed_or_short_ledger_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "l.jsonl"
    with Ledger(path) as ledger:
        ledger.append({"i": 1})
        mark = ledger.mark()
    good = path.read_bytes()
    path.write_bytes(good.replace(b"1", b"2"))
    with pytest.raises(CheckpointError, match="was changed within"):
        Ledger(path).cut_back(mark)
    path.write_bytes(good[:-1])
    with pytest.raises(CheckpointError, match=f"has {len(good) - 1} bytes"):
        Ledger(path).cut_back(mark)
    path.write_bytes(good)
    Ledger(path).cut_back(mark)


def test_a_refused_row_leaves_no_trace(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "l.jsonl")
    before = ledger.mark()
    with pytest.raises(ValueError, match="not JSON compliant"):
        ledger.append({"x": float("inf")})
    assert ledger.mark() == before


def test_marks_read_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A mark per version over a long run must not cost a pass over the ledger each."""
    ledger = Ledger(tmp_path / "l.jsonl")
    ledger.append({"i": 1})
    monkeypatch.setattr(files, "_hash_prefix", lambda *_: pytest.fail("the file was read"))
    assert ledger.mark()["length"] == len(b'{"i":1}\n')
