"""A process that has everything imported and forks one child per launch: a start costs no import of torch.

It reads one JSON job per line (``lab.Server`` writes them), forks a child that runs the real command line with its
faults planted, waits, and answers with the exit code. No tensor is made before the fork, so no thread is lost in it.
"""

from __future__ import annotations

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
)


def wait_for(pid: int, seconds: float) -> int:
    """Exit code of a child; minus the signal that killed it. A child that takes too long is killed and told apart."""
    deadline = time.monotonic() + seconds
    while True:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > deadline:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            return 999
        time.sleep(0.01)


def next_child(answers: Any) -> dict[str, Any] | None:
    """Serve jobs; returns one in the child that is to run it, and None in the parent when there are no more."""
    for line in sys.stdin:
        job = json.loads(line)
        pid = os.fork()
        if not pid:
            return job
        answers.write(json.dumps({"code": wait_for(pid, job["seconds"])}) + "\n")
        answers.flush()
    return None


def become(job: dict[str, Any]) -> None:
    """The child's folder, output, limits and faults."""
    from faults import plant

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
    plant.follow_stages()
    for name in job["mutations"]:
        plant.MUTATIONS[name]()
    for fault in job["faults"]:
        plant.plant(plant.Fault(**fault))


def main() -> int:
    for name in PRELOADED:
        importlib.import_module(name)
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
