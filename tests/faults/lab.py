"""Launches that end badly, and what they leave: the test's side of ``server.py``."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from e2e.tiny import content
from faults.plant import Fault

KILLED, STOPPED = -signal.SIGKILL, 75


@dataclass(frozen=True)
class Done:
    """How a launch ended. ``code``: exit code, or minus a signal's number; ``cpu``: processor time, in seconds."""

    code: int
    out: str
    err: str
    cpu: float = 0.0


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
        seconds: float = 900.0,
        kill_at: float = 0.0,
        ops: Mapping[str, Any] | None = None,
        poison: Mapping[str, Any] | None = None,
        report: bool = True,
        printed: Path | None = None,
    ) -> Done:
        """Run the command line to its end.

        Args:
            cwd: folder to run in.
            argv: as after ``trimtab``.
            faults, mutations: what goes wrong (``plant.py``).
            file_size: no file can grow beyond so many bytes (RLIMIT_FSIZE); 0 = no limit.
            fsync: really put files on the disk.
            seconds: killed after so long (code 999).
            kill_at: SIGKILL from outside at so many seconds of its processor time; 0 = never.
            ops: counts file operations, kills at one of them (``ops.install``).
            poison: makes a number not finite (``poison.install``).
            printed: folder for what is printed; None = ``cwd``.
            report: writes ``report.html``, a third of a tiny run's time.
        """
        out, err = (printed or cwd) / "stdout", (printed or cwd) / "stderr"
        job: dict[str, Any] = {"cwd": str(cwd), "argv": list(argv), "out": str(out), "err": str(err)}
        job |= {"faults": [fault.as_json() for fault in faults], "mutations": list(mutations)}
        job |= {"file_size": file_size, "fsync": fsync, "seconds": seconds, "kill_at": kill_at}
        job |= {"ops": ops, "poison": poison, "report": report}
        code, cpu = self.ends(job)
        return Done(code, out.read_text("utf-8"), err.read_text("utf-8"), cpu)

    def ends(self, job: Mapping[str, Any]) -> tuple[int, float]:
        """Exit code and processor time of a launch."""
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(json.dumps(job) + "\n")
        self.process.stdin.flush()
        answer = json.loads(self.process.stdout.readline())
        return answer["code"], answer["cpu"]

    def run(self, cwd: Path, *more: str, **options: Any) -> Done:
        """``trimtab run recipe.yaml --dir run`` in a folder."""
        return self.trimtab(cwd, "run", "recipe.yaml", "--dir", "run", *more, **options)


@contextmanager
def serving() -> Iterator[Server]:
    """A server for as long as the block lasts. Another hash seed each time: no order of a set may matter."""
    tests = str(Path(__file__).resolve().parents[1])
    path = os.pathsep.join(filter(None, [tests, str(Path(tests).parent / "src"), os.environ.get("PYTHONPATH")]))
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
    """Events of one kind in a stage's ``events.jsonl``; half a line that a kill left is none."""
    file = run / "stages" / stage / "events.jsonl"
    lines = file.read_text("utf-8").splitlines() if file.exists() else []
    rows = [json.loads(line) for line in lines if line.endswith("}")]
    return [row for row in rows if row["event"] == kind]


def resumed(run: Path, stage: str) -> list[int]:
    """The versions from which a stage was continued, in order."""
    return [row["version"] for row in events(run, stage, "resumed")]


def difference(whole: Path, broken: Path, below: str = "") -> str:
    """The names of files that differ, below a folder of the run; "" if the bytes are the same (see ``content``)."""
    a, b = content(whole), content(broken)
    names = sorted(n for n in {*a, *b} if n.startswith(below) and a.get(n) != b.get(n))
    return f"other bytes: {', '.join(names)}" if names else ""


def assert_same(whole: Path, broken: Path) -> None:
    """Both runs have the same files with the same bytes (see ``content``)."""
    assert difference(whole, broken) == ""
