"""What Trimtab says when something is wrong: what, where, and what to do.

Every error a user can cause is a ``TrimtabError``; the command line prints it without a traceback
and exits with ``exit_code``. Anything else that escapes is our bug and keeps its traceback.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Where:
    """A place in something the user wrote: ``file:line:column``, and the key or field there."""

    file: str = ""
    line: int | None = None
    column: int | None = None
    key: str = ""

    def __str__(self) -> str:
        spot = ":".join(str(part) for part in (self.file, self.line, self.column) if part not in (None, ""))
        return " ".join(part for part in (spot, f"key '{self.key}'" if self.key else "") if part)


class TrimtabError(Exception):
    """Base of every error with a cause outside Trimtab.

    Args:
        problem: what is wrong, as a sentence.
        where: the place in the user's input, if there is one.
        fix: what to do about it, in the imperative.
    """

    exit_code = 1

    def __init__(self, problem: str, *, where: Where | None = None, fix: str = "") -> None:
        self.problem, self.where, self.fix = problem, where, fix
        spot = str(where) if where else ""
        super().__init__("".join((f"{spot}: " if spot else "", problem, f"\n  fix: {fix}" if fix else "")))


class RecipeError(TrimtabError):
    """The recipe, or an override of it, cannot mean anything: unknown key, wrong type, cycle, conflict."""

    exit_code = 2


class DataError(TrimtabError):
    """A row, a file or a dataset cannot be used."""

    exit_code = 3


class ModelError(TrimtabError):
    """A model cannot be loaded, or does not do what an algorithm needs (probe, hydra check, parity)."""

    exit_code = 4


class CheckpointError(TrimtabError):
    """A run directory cannot be continued as it is: damaged files, changed inputs, another machine."""

    exit_code = 5


class RunLocked(TrimtabError):
    """Another process drives this run directory."""

    exit_code = 6


class Diverged(TrimtabError):
    """Training stopped itself: non-finite numbers in a row, or a monitor said halt."""

    exit_code = 7


class Interrupted(TrimtabError):
    """Stopped by Ctrl-C or SIGTERM after saving; the same command continues (EX_TEMPFAIL)."""

    exit_code = 75
