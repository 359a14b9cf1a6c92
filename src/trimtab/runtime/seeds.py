"""Named random streams: every draw belongs to (seed, what it is for, which one), none to a global generator.

A stream is Philox (Salmon et al., SC 2011) under a key that is the sha256 of its name, so streams do not depend on one
another, on the order in which they are opened, or on the process that opens them. Sampling names one stream per
completion (seed, stage, version, attempt, prompt id, sample) and reads the uniform of a token by its position in it.

``uniforms`` and ``permutation`` use only the bit generator, whose stream numpy promises to keep; what ``Generator``'s
distributions make of it may change between numpy versions (NEP 19), so what must resume across an upgrade should not
draw from ``rng``.
"""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt


def name_of(seed: int, *parts: str | int) -> bytes:
    """The stream's name as bytes: every part with its type and length, so no two lists of parts meet in one name.

    Raises:
        TypeError: a part is neither a str nor an int (a bool or a float would hide what it stands for).
    """
    pieces = []
    for part in (seed, *parts):
        if isinstance(part, bool) or not isinstance(part, (str, int)):
            raise TypeError(f"a random stream is named by strings and integers, not by {part!r}")
        kind, text = ("s", part.encode("utf-8", "surrogatepass")) if isinstance(part, str) else ("i", b"%d" % part)
        pieces.append(b"%s%d:%s" % (kind.encode(), len(text), text))
    return b"".join(pieces)


def _philox(seed: int, parts: tuple[str | int, ...]) -> np.random.Philox:
    return np.random.Philox(key=int.from_bytes(hashlib.sha256(name_of(seed, *parts)).digest()[:16], "little"))


def rng(seed: int, *parts: str | int) -> np.random.Generator:
    """A fresh generator at the start of the named stream."""
    return np.random.Generator(_philox(seed, parts))


def uniforms(n: int, seed: int, *parts: str | int) -> npt.NDArray[np.float64]:
    """The first n numbers of the named stream, float64 [n] in [0, 1); the k-th does not depend on n."""
    raw = np.asarray(_philox(seed, parts).random_raw(n), dtype=np.uint64)
    return (raw >> np.uint64(11)).astype(np.float64) * 2.0**-53


def permutation(n: int, seed: int, *parts: str | int) -> list[int]:
    """0..n-1 in an order that depends only on n and the name."""
    raw = np.asarray(_philox(seed, parts).random_raw(n), dtype=np.uint64)
    return [int(i) for i in np.argsort(raw, kind="stable")]
