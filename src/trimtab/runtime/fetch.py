"""Files fetched once by package name, and where they are kept.

Downloads go through pip, so the machine's own index, proxy, certificates and caches apply and no host is named here.
"""

from __future__ import annotations

import contextlib
import fcntl
import importlib.util
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from trimtab.errors import TrimtabError
from trimtab.runtime.files import atomic_dir, sha256_file

Kind = Literal["wheel", "sdist"]

_SUFFIXES: dict[str, tuple[str, ...]] = {"wheel": (".whl",), "sdist": (".tar.gz", ".zip")}


class FetchError(TrimtabError):
    """A file could not be downloaded (no network, no pip), or is not the one that was asked for."""


def home() -> Path:
    """Folder of downloads and converted models.

    ``$TRIMTAB_HOME``, else ``$XDG_CACHE_HOME/trimtab``, else ``~/.cache/trimtab``.
    """
    if own := os.environ.get("TRIMTAB_HOME"):
        return Path(own).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "trimtab"


@contextlib.contextmanager
def only_one(target: Path) -> Iterator[None]:
    """Processes that are about to make the same file or folder take turns; a lock dies with its process."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with open(target.with_name(f".{target.name}.lock"), "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def package_file(name: str, version: str, kind: Kind, sha256: str | None) -> Path:
    """The wheel or source distribution of one release, downloaded the first time, nothing of it installed.

    The file lies in ``home()/packages/<name>-<version>-<kind>/``; a copy put there by hand is used as well. With a
    hash, a cached file that does not match is downloaded again, and pip refuses a download that does not match before
    it looks inside. Without one, whatever the index serves is taken.

    Args:
        name: the package's name on the index.
        version: exactly this release.
        kind: ``wheel`` or ``sdist``.
        sha256: hex digest of the whole file; None = not checked.

    Raises:
        FetchError: pip is missing, the index cannot be reached or lacks the file, or the hash differs.
    """
    folder = home() / "packages" / f"{name.lower()}-{version}-{kind}"
    with only_one(folder):
        cached = _cached(folder, kind)
        if cached is not None and (sha256 is None or sha256_file(cached) == sha256):
            return cached
        with atomic_dir(folder) as fresh:
            _download(name, version, kind, sha256, fresh, folder)
        found = _cached(folder, kind)
    if found is None:
        raise FetchError(f"pip reported success, but saved no {kind} of {name} {version}")
    return found


def _cached(folder: Path, kind: Kind) -> Path | None:
    files = sorted(f for f in folder.glob("*") if f.name.endswith(_SUFFIXES[kind])) if folder.is_dir() else []
    return files[0] if len(files) == 1 else None


def _download(name: str, version: str, kind: Kind, sha256: str | None, into: Path, folder: Path) -> None:
    """Run pip, for a source distribution first without and then with build isolation.

    To download an sdist pip insists on asking it for its metadata, which runs its ``setup.py``. With the hash in a
    requirements file that happens only after the hash was checked. Only this package is kept from being a wheel:
    ``--no-binary :all:`` would make an isolated build compile setuptools from source. Without isolation pip needs the
    setuptools that is installed here (none in a fresh venv since Python 3.12); with it, it fetches its own.
    """
    if importlib.util.find_spec("pip") is None:
        raise FetchError(
            f"{name} {version} has to be downloaded, but this Python has no pip ({sys.executable})",
            fix=f"run '{sys.executable} -m ensurepip', or put the {kind} into {folder} yourself",
        )
    form = ["--only-binary", ":all:"] if kind == "wheel" else ["--no-binary", name]
    attempts = [form]
    if kind == "sdist" and importlib.util.find_spec("setuptools") is not None:
        attempts.insert(0, [*form, "--no-build-isolation"])
    problem = ""
    for options in attempts:
        problem = _pip_download(f"{name}=={version}", sha256, [*options, "--dest", str(into)])
        if not problem:
            return
        if "DO NOT MATCH THE HASHES" in problem:
            raise FetchError(
                f"the index serves another file as {name} {version} than the one Trimtab knows (sha256 {sha256})",
                fix=f"check the package index that pip is configured with, or put the right {kind} into {folder}",
            )
    raise FetchError(
        f"pip could not download the {kind} of {name} {version}: {_last_error(problem)}",
        fix=f"connect to a package index once, or put the {kind} into {folder} yourself",
    )


def _pip_download(requirement: str, sha256: str | None, options: list[str]) -> str:
    """Run ``pip download`` on one requirement; "" on success, else what pip printed."""
    with tempfile.TemporaryDirectory(prefix="trimtab-pip-") as scratch:
        listing = Path(scratch) / "requirements.txt"
        listing.write_text(requirement + (f" --hash=sha256:{sha256}" if sha256 else "") + "\n", encoding="utf-8")
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-input", "--disable-pip-version-check"]
        command += [*options, "--requirement", str(listing)]
        done = subprocess.run(command, cwd=scratch, capture_output=True, text=True, errors="replace", check=False)
    return "" if done.returncode == 0 else done.stdout + done.stderr or f"exit status {done.returncode}"


def _last_error(output: str) -> str:
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR")]
    return (errors or lines or ["no message"])[-1]
