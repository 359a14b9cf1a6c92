"""A process that has everything imported and forks one child per launch: a start costs no import of torch.

It reads one JSON job per line (``lab.Server`` writes them), forks a child that runs the real command line with its
faults planted, waits, and answers with the exit code. No tensor is made before the fork, so no thread is lost in it.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import resource
import signal
import sys
import time
from typing import Any

PRELOADED = (
    "trimtab.apps.cli",
    "trimtab.pipeline.run",
    "trimtab.pipeline.report",
    "trimtab.pipeline.evaluate",
    "trimtab.algorithms.sft.stage",
    "trimtab.algorithms.reward.stage",
    "trimtab.algorithms.ppo.stage",
    "transformers.models.auto.modeling_auto",
    "transformers.models.llama.modeling_llama",
    "transformers.models.gpt2.modeling_gpt2",
    "transformers.models.bloom.modeling_bloom",
    "vaderSentiment.vaderSentiment",
    "faults.plant",
    "faults.ops",
    "faults.poison",
)


def cpu_of(pid: int) -> float:
    """Processor time of a process so far, in seconds (Linux's clock of that process: clock_getcpuclockid(3))."""
    try:
        return time.clock_gettime((~pid << 3) | 2)
    except OSError:  # it has just ended
        return 0.0


def wait_for(pid: int, seconds: float, kill_at: float) -> tuple[int, float]:
    """Exit code of a child (minus the signal that killed it), and the processor time that it took.

    ``kill_at``: it is killed from outside at so many seconds of its own processor time, however busy the machine is;
    0 = never. A child that takes more than ``seconds`` by the wall is killed and told apart (999).
    """
    deadline = time.monotonic() + seconds
    while True:
        if kill_at and cpu_of(pid) >= kill_at:
            os.kill(pid, signal.SIGKILL)
            kill_at = 0.0
        done, status, usage = os.wait4(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status), usage.ru_utime + usage.ru_stime
        if time.monotonic() > deadline:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            return 999, seconds
        time.sleep(0.001 if kill_at else 0.01)


def next_child(answers: Any) -> dict[str, Any] | None:
    """Serve jobs; returns one in the child that is to run it, and None in the parent when there are no more."""
    for line in sys.stdin:
        job = json.loads(line)
        pid = os.fork()
        if not pid:
            return job
        code, cpu = wait_for(pid, job["seconds"], job["kill_at"])
        answers.write(json.dumps({"code": code, "cpu": cpu}) + "\n")
        answers.flush()
    return None


def become(job: dict[str, Any]) -> None:
    """The child's folder, output, limits and faults."""
    from faults import ops, plant, poison

    os.chdir(job["cwd"])
    for number, name in ((1, "out"), (2, "err")):
        descriptor = os.open(job[name], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        os.dup2(descriptor, number)
        os.close(descriptor)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    if job["file_size"]:
        resource.setrlimit(resource.RLIMIT_FSIZE, (job["file_size"], job["file_size"]))
    if not job["fsync"]:
        os.fsync = lambda descriptor: None  # no power cuts here, and disks are slow
    if not job["report"]:
        run = importlib.import_module("trimtab.pipeline.run")
        run._report = lambda driver: None
    plant.follow_stages()
    for name in job["mutations"]:
        (plant.MUTATIONS | plant.MACHINES)[name]()
    for fault in job["faults"]:
        plant.plant(plant.Fault(**fault))
    if job["ops"]:
        ops.install(**job["ops"])
    if job["poison"]:
        poison.install(**job["poison"])


def preload() -> None:
    """Import everything a launch needs; each child's collections then look at its own objects only."""
    for name in PRELOADED:
        importlib.import_module(name)
    gc.freeze()


def main() -> int:
    preload()
    with os.fdopen(os.dup(1), "w") as answers:
        answers.write("ready\n")
        answers.flush()
        job = next_child(answers)
    if job is None:
        return 0
    become(job)
    from trimtab.apps.cli import main as trimtab

    return trimtab(job["argv"])


if __name__ == "__main__":
    sys.exit(main())
