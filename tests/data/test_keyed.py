"""Randomness from names."""

from __future__ import annotations

from trimtab.data.keyed import keyed_int, keyed_order, keyed_share


def test_numbers_are_the_same_everywhere() -> None:
    """A fixed value: a change would silently reshuffle and resplit everybody's data."""
    assert keyed_int("order", 0, "x.jsonl:1") == 729948444730096473  # the first 16 hex digits of sha256
    assert keyed_int("a", "b") != keyed_int("ab")
    assert keyed_int("a", 1) == keyed_int("a", "1")


def test_shares_are_uniform() -> None:
    shares = [keyed_share("test", i) for i in range(2000)]
    assert all(0 <= share < 1 for share in shares)
    for cut in (0.1, 0.5, 0.9):
        assert abs(sum(share < cut for share in shares) / 2000 - cut) < 0.04


def test_order_ignores_neighbours_and_input_order() -> None:
    whole = keyed_order(map(str, range(100)), str, "seed", 1)
    part = keyed_order(map(str, range(99, -1, -3)), str, "seed", 1)
    assert part == [name for name in whole if name in set(part)]
    assert whole != keyed_order(map(str, range(100)), str, "seed", 2)
