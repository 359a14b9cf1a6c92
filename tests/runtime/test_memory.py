"""Freed memory is reused: the same large tensors, made again and again, fault in no new pages."""

from __future__ import annotations

import subprocess
import sys

_FAULTS = """
import resource, sys, torch
from trimtab.runtime.memory import keep_freed
if sys.argv[1] == "kept" and not keep_freed():
    raise SystemExit(3)
def work(times):
    for _ in range(times):
        torch.ones(9_000_000)  # 36 MB: beyond what glibc would come to keep by itself
work(40)  # glibc's posix_memalign asks for a little more than the block it freed: some rounds pass before one fits
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
work(5)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(how: str) -> int:
    done = subprocess.run([sys.executable, "-c", _FAULTS, how], capture_output=True, text=True, check=True)
    return int(done.stdout)


def test_large_tensors_are_not_mapped_anew() -> None:
    assert faults("kept") < faults("as it comes") / 10
