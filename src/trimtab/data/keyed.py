"""Numbers from names: what is random about data depends on a seed and a row's own identity, never on its neighbours."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from typing import TypeVar

T = TypeVar("T")


def keyed_int(*parts: object) -> int:
    """A 64-bit number from a sequence of names and numbers (sha256; the same on every machine and Python)."""
    text = "\x1f".join(str(part) for part in parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


def keyed_share(*parts: object) -> float:
    """A number in [0, 1) from a sequence of names and numbers."""
    return keyed_int(*parts) / 2**64


def keyed_order(rows: Iterable[T], identity: Callable[[T], str], *parts: object) -> list[T]:
    """The rows in a random order that adding or removing other rows does not change."""
    return sorted(rows, key=lambda row: (keyed_int(*parts, identity(row)), identity(row)))
