"""Launches that end badly, and what they leave: the test's side of ``server.py``."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from e2e.tiny import content
from faults.plant import Fault

KILLED, STOPPED = -signal.SIGKILL, 75


@dataclass(frozen=True)
class Done:
    """How a launch ended. ``code``: exit code, or minus a signal's number."""

    code: int
    out: str
    err: str


class Server:
    """Starts of ``trimtab`` in folders, each in a forked process of its own."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    def trimtab(
        self,
        cwd: Path,
        *argv: str,
        faults: Sequence[Fault] = (),
        mutations: Sequence[str] = (),
        file_size: int = 0,
        fsync: bool = False,
        seconds: float = 300.0,
    ) -> Done:
        """Run the command line to its end.

        Args:
            cwd: folder to run in; what is printed is kept there too.
            argv: as after ``trimtab``.
            faults, mutations: what goes wrong (``plant.py``).
            file_size: no file can grow beyond so many bytes (RLIMIT_FSIZE); 0 = no limit.
            fsync: really put files on the disk.
            seconds: killed after so long (code 999).
        """
        out, err = cwd / "stdout", cwd / "stderr"
        job: dict[str, Any] = {"cwd": str(cwd), "argv": list(argv), "out": str(out), "err": str(err)}
        job |= {"faults": [fault.as_json() for fault in faults], "mutations": list(mutations)}
        job |= {"file_size": file_size, "fsync": fsync, "seconds": seconds}
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(json.dumps(job) + "\n")
        self.process.stdin.flush()
        code = json.loads(self.process.stdout.readline())["code"]
        return Done(code, out.read_text("utf-8"), err.read_text("utf-8"))

    def run(self, cwd: Path, *more: str, **options: Any) -> Done:
        """``trimtab run recipe.yaml --dir run`` in a folder."""
        return self.trimtab(cwd, "run", "recipe.yaml", "--dir", "run", *more, **options)


@contextmanager
def serving() -> Iterator[Server]:
    """A server for as long as the block lasts. Another hash seed each time: no order of a set may matter."""
    tests = str(Path(__file__).resolve().parents[1])
    path = os.pathsep.join([tests, os.environ["PYTHONPATH"]])
    process = subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("server.py"))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield Server(process)
    finally:
        assert process.stdin is not None
        process.stdin.close()
        process.wait()


def events(run: Path, stage: str, kind: str) -> list[dict[str, Any]]:
    """Events of one kind in a stage's ``events.jsonl``."""
    file = run / "stages" / stage / "events.jsonl"
    rows = [json.loads(line) for line in file.read_text("utf-8").splitlines()] if file.exists() else []
    return [row for row in rows if row["event"] == kind]


def resumed(run: Path, stage: str) -> list[int]:
    """The versions from which a stage was continued, in order."""
    return [row["version"] for row in events(run, stage, "resumed")]


def assert_same(whole: Path, broken: Path) -> None:
    """Both runs have the same files with the same bytes (see ``content``)."""
    a, b = content(whole), content(broken)
    assert sorted(a) == sorted(b), f"only in one: {sorted(a.keys() ^ b.keys())}"
    different = [name for name in a if a[name] != b[name]]
    assert not different, f"other bytes: {different}"
