"""A source distribution like vaderSentiment's, with snippets and ratings written here."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

from trimtab.data.films import RATINGS, TEXTS

_TALE = "the film is a warm dull clever empty tale of two old friends who laugh and lie in a small quiet town"
WORDS = tuple(_TALE.split(" "))


def lines(count: int) -> list[tuple[str, list[int]]]:
    """``(text, ratings)``, sorted by sentiment as the real file is; 5 to 14 words, 15 to 17 raters each."""
    made = []
    for i in range(count):
        middle = 4 - 8 * i // max(count - 1, 1)
        ratings = [max(-4, min(4, middle + (i * 7 + j * 5) % 3 - 1)) for j in range(15 + i % 3)]
        made.append((" ".join(WORDS[(i + j) % len(WORDS)] for j in range(4 + i % 10)) + f" {i}.", ratings))
    return made


def members(snippets: list[tuple[str, list[int]]]) -> dict[str, bytes]:
    """The two files: tab-separated, CR LF, nothing after the last line."""
    texts, ratings = [], []
    for i, (text, rated) in enumerate(snippets, 1):
        mean = sum(rated) / len(rated)
        texts.append(f"{i}\t{mean:.11f}\t{text}")
        ratings.append(f"{i}\t{mean:.9f}\t0.5\t{rated}")
    return {TEXTS: "\r\n".join(texts).encode(), RATINGS: "\r\n".join(ratings).encode()}


def archive(path: Path, files: dict[str, bytes]) -> Path:
    """The nested archives, with a module that must never be extracted or imported."""
    files = {**files, "vaderSentiment.py": b"raise SystemExit('imported')\n", "tweets_GroundTruth.txt": b"1\t0\tno\r\n"}
    inner = _tar({f"hutto_ICWSM_2014/{name}": data for name, data in files.items()})
    outer = {"vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz": inner}
    path.write_bytes(_tar({**outer, "vaderSentiment-3.3.2/setup.py": b"raise SystemExit('run')\n"}))
    return path


def _tar(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()
