"""The machine and the versions on which a run's numbers depend, bit for bit."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from pathlib import Path
from typing import Any

import trimtab
from trimtab.errors import CheckpointError, DataError, Where
from trimtab.pipeline.manifest import changes
from trimtab.runtime.files import read_json, write_json

_PACKAGES = ("torch", "transformers", "numpy")


def environment() -> dict[str, Any]:
    """Whatever orders floating-point sums on this machine, as it is now set."""
    import torch  # the only place here that needs it; reading a recipe must not

    cuda = torch.cuda.is_available()
    return {
        "trimtab": trimtab.__version__,
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in _PACKAGES},
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name() if cuda else "cpu",
        "system": platform.system(),
        "machine": platform.machine(),
        "cpu": _cpu(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
    }


def honour(path: Path, *, inexact: bool) -> tuple[dict[str, Any], list[str]]:
    """Set this process up as at the run's first launch, or refuse.

    The number of threads is set to the first launch's where this machine has as many cores.

    Args:
        path: the run's ``manifest.json``; written if there is none.
        inexact: the user accepts other sums; the environment on record becomes the present one.

    Returns:
        the environment in force, and what changed against the record.

    Raises:
        CheckpointError: something differs and ``inexact`` is not given; the record is damaged or gone.
    """
    if not path.exists() and not inexact and (path.parent / "stages").exists():
        raise _damaged(path, "is gone")
    if not path.exists():
        now = environment()
        write_json(path, {"environment": now})
        return now, []
    try:
        before = dict(read_json(path)["environment"])
        _set_threads(int(before["threads"]))
    except (DataError, KeyError, TypeError, ValueError) as error:
        raise _damaged(path, f"is damaged ({error})") from error
    now = environment()
    different = changes(before, now)
    if different and not inexact:
        raise CheckpointError(
            "this start would round differently from the one that began the run: " + "; ".join(different),
            where=Where(str(path)),
            fix="go back to that setup, choose a fresh --dir, or accept another rounding with --inexact",
        )
    if different:
        write_json(path, {"environment": now})
    return now, different


def _damaged(path: Path, how: str) -> CheckpointError:
    return CheckpointError(
        f"the record of the machine that began this run {how}",
        where=Where(str(path)),
        fix="restore the file from a backup, or choose a fresh --dir",
    )


def _set_threads(wanted: int) -> None:
    import torch

    if wanted <= len(os.sched_getaffinity(0)):
        torch.set_num_threads(wanted)


def _cpu() -> str:
    """The processor's name: libraries choose their kernels by it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
