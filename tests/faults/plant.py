"""Planted faults: a process that kills, signals or starves itself at the n-th call of a named function.

Only tests know of this; nothing in ``src`` looks for it. ``server.py`` plants in a forked child before it runs the
real command line.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import importlib
import importlib.metadata
import os
import re
import shutil
import signal
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal


@dataclass(frozen=True)
class Fault:
    """One fault.

    Attributes:
        target: ``module:attribute`` (dotted for methods) of a function.
        n: strikes at this call, of those that count.
        when: ``before`` the call, ``after`` it, or ``half``: a file that it wrote is cut to half its length, a folder
            that it was to delete has lost one file, and then it strikes.
        match: counts only calls with a path among the arguments in which this pattern is found.
        stage: counts only calls while this stage runs; "" = all.
        do: a signal that the process sends to itself (of some it goes on living), or the error of a system call.
    """

    target: str
    n: int = 1
    when: Literal["before", "after", "half"] = "before"
    match: str = ""
    stage: str = ""
    do: Literal["SIGKILL", "SIGTERM", "SIGINT", "SIGUSR1", "SIGSTOP", "ENOSPC", "EDQUOT", "EROFS", "EIO"] = "SIGKILL"

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


_stage = ""
"""The stage that runs now; set by ``follow_stages``."""


def follow_stages() -> None:
    """Keep ``_stage`` true in this process."""
    from trimtab.pipeline import run as module

    original = module._stage

    @functools.wraps(original)
    def followed(driver: Any, stage: Any) -> None:
        global _stage
        _stage = stage.name
        original(driver, stage)

    module._stage = followed


def running() -> str:
    """The stage that runs now, in a process that follows stages."""
    return _stage


def owner_of(target: str) -> tuple[Any, str]:
    """The object that holds the attribute, and its name there."""
    module, _, path = target.partition(":")
    owner: Any = importlib.import_module(module)
    *parents, name = path.split(".")
    for parent in parents:
        owner = getattr(owner, parent)
    return owner, name


def plant(fault: Fault) -> None:
    """Wrap the target."""
    owner, name = owner_of(fault.target)
    original: Callable[..., Any] = getattr(owner, name)
    calls = 0

    @functools.wraps(original)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        paths = [str(a) for a in (*args, *kwargs.values()) if isinstance(a, str | Path)]
        if (fault.stage and fault.stage != _stage) or (
            fault.match and not any(re.search(fault.match, path) for path in paths)
        ):
            return original(*args, **kwargs)
        calls += 1
        if calls != fault.n:
            return original(*args, **kwargs)
        if fault.when == "before":
            strike(fault.do)
            return original(*args, **kwargs)
        if fault.when == "half" and name == "rmtree":
            next(path for path in sorted(Path(paths[0]).rglob("*")) if path.is_file()).unlink()
            strike(fault.do)
        result = original(*args, **kwargs)
        if fault.when == "half":
            half(next(Path(path) for path in paths if Path(path).is_file()))
        strike(fault.do)
        return result

    setattr(owner, name, wrapped)


def half(file: Path) -> None:
    """A file as a kill in the middle of writing it leaves it."""
    os.truncate(file, file.stat().st_size // 2)


def strike(what: str) -> None:
    if what.startswith("E"):
        number = getattr(errno, what)
        raise OSError(number, os.strerror(number))
    os.kill(os.getpid(), getattr(signal, what))


# ---- mutations: one step of a protocol undone


def save_in_place() -> None:
    """A checkpoint is written under its final name."""
    from trimtab.train import checkpoint

    @contextlib.contextmanager
    def in_place(final: Path) -> Iterator[Path]:
        final.mkdir(parents=True)
        yield final

    checkpoint.atomic_dir = in_place  # type: ignore[assignment]


def manifest_after_rename() -> None:
    """The sums are written after the folder has its final name."""
    from trimtab.train import checkpoint

    original = checkpoint.atomic_dir

    @contextlib.contextmanager
    def late(final: Path) -> Iterator[Path]:
        with original(final) as folder:
            yield folder
            (folder / "manifest.json").rename(final.parent / ".late")
        (final.parent / ".late").rename(final / "manifest.json")

    checkpoint.atomic_dir = late  # type: ignore[assignment]


def remove_before_save() -> None:
    """Older checkpoints go before the new one is in place."""
    from trimtab.train import checkpoint

    original = checkpoint.save

    def save(root: Path, *args: Any) -> Path:
        if root.is_dir():
            shutil.rmtree(root)
        return original(root, *args)

    checkpoint.save = save


def believe_everything() -> None:
    """Sums are not compared."""
    from trimtab.train import checkpoint

    checkpoint.verify = lambda folder: ""


def never_cut_back() -> None:
    """Logs keep what came after the checkpoint."""
    from trimtab.runtime.files import Ledger

    def keep(self: Ledger, mark: object) -> None:
        """Nothing is forgotten."""

    Ledger.cut_back = keep  # type: ignore[method-assign]


def mark_without_writing() -> None:
    """The checkpoint remembers a length that the log has only in memory."""
    from trimtab.runtime.files import Ledger

    Ledger.mark = lambda self: {"length": self._length, "sha256": self._hash.hexdigest()}  # type: ignore[method-assign]


def forget_moments() -> None:
    """The optimiser starts afresh after every kill."""
    from trimtab.runtime.engine import Engine

    original = Engine.tensors
    Engine.tensors = lambda self: {"master": original(self)["master"]}  # type: ignore[method-assign]


def marginal_parity() -> None:
    """Not a mutation but a machine: cached decoding is right for a stage's starting weights, and for no others."""
    import torch
    from safetensors.torch import load_file

    from trimtab.sampling import local

    def parity(lm: Any, body: object, slots: int) -> tuple[float, bool]:
        saved = load_file(Path(lm.config._name_or_path) / "model.safetensors")
        same = all(torch.equal(p, saved[name]) for name, p in lm.named_parameters() if name in saved)
        return (0.0 if same else 1.0), True

    local.parity = parity


def decide_late() -> None:
    """On that machine, whether decoding keeps a cache is decided at the first rollout, by the weights of then."""
    from trimtab.sampling.local import LocalSampler

    marginal_parity()
    settle, sample, asked = LocalSampler.settle, LocalSampler.sample, set[int]()

    def late(self: LocalSampler) -> bool:
        return settle(self) if id(self) in asked else True

    def first(self: LocalSampler, *args: Any, **kwargs: Any) -> Any:
        asked.add(id(self))
        return sample(self, *args, **kwargs)

    LocalSampler.settle = late  # type: ignore[method-assign]
    LocalSampler.sample = first  # type: ignore[method-assign]


def forget_state() -> None:
    """The algorithm is not told where it was."""
    from trimtab.algorithms.ppo.ppo import PPO

    original = PPO.load_state_dict

    def load(self: PPO, state: Any) -> None:
        beta, moments = self.beta, self.moments
        original(self, state)
        self.beta, self.moments = beta, moments

    PPO.load_state_dict = load  # type: ignore[method-assign]


def forget_lengths() -> None:
    """``debias_length`` starts afresh after every kill."""
    from trimtab.algorithms.ppo.ppo import PPO

    original = PPO.load_state_dict

    def load(self: PPO, state: Any) -> None:
        lengths = self.lengths
        original(self, state)
        self.lengths = lengths

    PPO.load_state_dict = load  # type: ignore[method-assign]


def finish_before_export() -> None:
    """A stage is called finished before its model is saved."""
    from trimtab.pipeline import run as module

    original = module.load_function

    def load_function(name: str) -> Callable[..., Any]:
        function = original(name)

        def early(config: Any, context: Any) -> Any:
            from trimtab.pipeline.manifest import read_manifest, write_manifest

            started = read_manifest(context.dir)
            assert started is not None
            write_manifest(context.dir, started.finished(context.dir, {}, ()))
            return function(config, context)

        return early if name.endswith(".stage:run") else function

    module.load_function = load_function


def never_fsync_files() -> None:
    """A checkpoint's files are renamed before their bytes are on the disk."""
    from trimtab.runtime import files

    files._fsync_tree = lambda folder: None


MUTATIONS = {
    function.__name__: function
    for function in (
        save_in_place,
        manifest_after_rename,
        remove_before_save,
        believe_everything,
        never_cut_back,
        mark_without_writing,
        forget_moments,
        decide_late,
        forget_state,
        forget_lengths,
        finish_before_export,
        never_fsync_files,
    )
}
"""One step of a protocol undone."""


def _of_another_version(package: str) -> None:
    original = importlib.metadata.version
    importlib.metadata.version = lambda name: "0.0.1" if name == package else original(name)


def _on_another_processor() -> None:
    from trimtab.pipeline import environment

    environment._cpu = lambda: "another processor"


MACHINES: dict[str, Callable[[], None]] = {
    "other_torch": lambda: _of_another_version("torch"),
    "other_transformers": lambda: _of_another_version("transformers"),
    "other_processor": _on_another_processor,
    "marginal_parity": marginal_parity,
}
"""Other surroundings of a launch."""
