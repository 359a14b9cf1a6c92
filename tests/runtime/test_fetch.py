"""Downloads by package name, from an index that is a folder of packages written here."""

from __future__ import annotations

import base64
import hashlib
import io
import subprocess
import sys
import tarfile
import threading
import zipfile
from pathlib import Path

import pytest

from trimtab.runtime import fetch
from trimtab.runtime.fetch import FetchError, home, package_file
from trimtab.runtime.files import sha256_file

BACKEND = """
import os, pathlib
def prepare_metadata_for_build_wheel(folder, config_settings=None):
    pathlib.Path(os.environ["TRIMTAB_TEST_RAN"]).touch()
    info = pathlib.Path(folder, "tinypack-1.0.dist-info")
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\\nName: tinypack\\nVersion: 1.0\\n")
    (info / "WHEEL").write_text("Wheel-Version: 1.0\\nGenerator: us\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
    return info.name
def build_wheel(*args, **kwargs):
    raise RuntimeError("nothing is ever built")
"""


def wheel(folder: Path) -> Path:
    """A wheel with one data file; its record is complete, as pip may check it."""
    files = {
        "tinypack/data.bin": b"weights",
        "tinypack-1.0.dist-info/METADATA": b"Metadata-Version: 2.1\nName: tinypack\nVersion: 1.0\n",
        "tinypack-1.0.dist-info/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    digest = {n: base64.urlsafe_b64encode(hashlib.sha256(d).digest()).rstrip(b"=").decode() for n, d in files.items()}
    record = "".join(f"{n},sha256={digest[n]},{len(files[n])}\n" for n in files) + "tinypack-1.0.dist-info/RECORD,,\n"
    path = folder / "tinypack-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in {**files, "tinypack-1.0.dist-info/RECORD": record.encode()}.items():
            archive.writestr(name, data)
    return path


def sdist(folder: Path) -> Path:
    """A source distribution whose build backend leaves a trace when it is run."""
    project = '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
    files = {"pyproject.toml": project, "backend.py": BACKEND, "PKG-INFO": "Metadata-Version: 2.1\nName: tinypack\n"}
    path = folder / "tinypack-1.0.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        for name, text in files.items():
            info = tarfile.TarInfo(f"tinypack-1.0/{name}")
            info.size = len(text)
            tar.addfile(info, io.BytesIO(text.encode()))
    return path


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "index"
    folder.mkdir()
    wheel(folder)
    sdist(folder)
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("TRIMTAB_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("TRIMTAB_TEST_RAN", str(tmp_path / "ran"))
    return folder


def test_home_is_named_by_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "~/caches")
    monkeypatch.setenv("TRIMTAB_HOME", "~/mine")
    assert home() == Path.home() / "mine"
    monkeypatch.delenv("TRIMTAB_HOME")
    assert home() == Path.home() / "caches" / "trimtab"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert home() == Path.home() / ".cache" / "trimtab"


@pytest.mark.parametrize("kind", ["wheel", "sdist"])
def test_a_file_is_downloaded_once_and_whole(index: Path, tmp_path: Path, kind, monkeypatch) -> None:
    original = next(index.glob("*.whl" if kind == "wheel" else "*.tar.gz"))
    got = package_file("TinyPack", "1.0", kind, sha256_file(original))
    assert got == tmp_path / "home" / "packages" / f"tinypack-1.0-{kind}" / original.name
    assert got.read_bytes() == original.read_bytes()
    assert [p.name for p in got.parent.iterdir()] == [original.name], "no dependencies, nothing left over"
    monkeypatch.setattr(fetch, "_pip_download", lambda *a: pytest.fail("downloaded again"))
    assert package_file("TinyPack", "1.0", kind, sha256_file(original)) == got
    assert package_file("TinyPack", "1.0", kind, None) == got


def test_a_wrong_file_is_refused_before_anything_in_it_runs(index: Path, tmp_path: Path) -> None:
    with pytest.raises(FetchError, match="another file as tinypack 1.0") as refused:
        package_file("tinypack", "1.0", "sdist", "0" * 64)
    assert "package index" in refused.value.fix
    assert not (tmp_path / "ran").exists(), "pip asks an sdist for its metadata only after its hash was checked"
    assert not (tmp_path / "home" / "packages" / "tinypack-1.0-sdist").exists()
    package_file("tinypack", "1.0", "sdist", sha256_file(index / "tinypack-1.0.tar.gz"))
    assert (tmp_path / "ran").exists(), "or this test would see nothing"


def test_a_damaged_cached_file_is_downloaded_again(index: Path) -> None:
    known = sha256_file(index / "tinypack-1.0-py3-none-any.whl")
    got = package_file("tinypack", "1.0", "wheel", known)
    got.write_bytes(got.read_bytes()[:50])
    assert sha256_file(package_file("tinypack", "1.0", "wheel", known)) == known


def test_a_file_put_there_by_hand_is_used(index: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(fetch, "_pip_download", lambda *a: "ERROR: no network")
    with pytest.raises(FetchError, match="no network") as refused:
        package_file("tinypack", "1.0", "wheel", None)
    folder = tmp_path / "home" / "packages" / "tinypack-1.0-wheel"
    assert str(folder) in refused.value.fix
    folder.mkdir()
    wheel(folder)
    assert package_file("tinypack", "1.0", "wheel", None).parent == folder


def test_a_package_that_is_not_there_says_so(index: Path) -> None:
    with pytest.raises(FetchError, match=r"could not download the wheel of tinypack 2\.0: No matching") as refused:
        package_file("tinypack", "2.0", "wheel", None)
    assert refused.value.fix


def test_without_pip_the_fix_is_named(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(FetchError, match="no pip") as refused:
        package_file("tinypack", "1.0", "wheel", None)
    assert "ensurepip" in refused.value.fix


def test_an_sdist_is_tried_with_isolation_if_the_setuptools_here_will_not_do(index: Path, monkeypatch) -> None:
    tried = []

    def pip(requirement: str, sha256: str | None, options: list[str]) -> str:
        tried.append("--no-build-isolation" in options)
        if tried[-1]:
            return "ERROR: BackendUnavailable"
        sdist(Path(options[options.index("--dest") + 1]))
        return ""

    monkeypatch.setattr(fetch, "_pip_download", pip)
    monkeypatch.setattr(fetch.importlib.util, "find_spec", lambda name: object())
    assert package_file("tinypack", "1.0", "sdist", None).name == "tinypack-1.0.tar.gz"
    assert tried == [True, False]


def test_several_processes_download_once(index: Path, tmp_path: Path, monkeypatch) -> None:
    calls, real = [], fetch._pip_download
    monkeypatch.setattr(fetch, "_pip_download", lambda *a: calls.append(a) or real(*a))
    got: list[Path] = []
    ask = lambda: got.append(package_file("tinypack", "1.0", "wheel", None))  # noqa: E731
    threads = [threading.Thread(target=ask) for _ in range(4)]  # flock is per open file, so threads are like processes
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(calls) == 1
    assert len(set(got)) == 1 and len(got) == 4


def test_importing_it_needs_neither_torch_nor_pip() -> None:
    program = "import sys, trimtab.runtime.fetch; sys.exit(bool({'torch', 'pip'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
