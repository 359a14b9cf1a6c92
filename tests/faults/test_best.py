"""The best weights belong to the state that names them: a run that goes back finds the copy that it knew."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import nn

from trimtab.errors import CheckpointError
from trimtab.train.best import Best


def weights(value: float) -> dict[str, nn.Parameter]:
    return {"a": nn.Parameter(torch.full((3,), value)), "b": nn.Parameter(torch.full((2, 2), -value))}


def value_of(best: Best) -> float:
    found = weights(99.0)
    best.restore(found)
    return float(found["a"].detach()[0])


def test_the_smallest_key_wins_and_a_tie_keeps_the_earlier(tmp_path: Path) -> None:
    best = Best(tmp_path / "best")
    assert value_of(best) == 99.0, "nothing was offered"
    offers = [
        ([2.0, 5.0], 1, 1.0),
        ([1.0, 9.0], 2, 2.0),
        ([1.0, 9.0], 3, 3.0),
        ([1.0, 8.0], 4, 4.0),
        ([3.0, 0.0], 5, 5.0),
    ]
    taken = [best.offer(key, version, weights(value)) for key, version, value in offers]
    assert taken == [True, True, False, True, False]
    assert (best.version, best.key, value_of(best)) == (4, [1.0, 8.0], 4.0)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_key_that_is_not_finite_is_never_the_best(tmp_path: Path, bad: float) -> None:
    best = Best(tmp_path / "best")
    assert not best.offer([bad, 0.0], 1, weights(1.0))
    assert best.offer([5.0, 0.0], 2, weights(2.0)) and value_of(best) == 2.0


def test_a_run_that_goes_back_finds_the_best_that_its_state_names(tmp_path: Path) -> None:
    """Saved at version 2; better at 4; killed; continued from 2 on a machine where 4 is no better (--inexact)."""
    killed = Best(tmp_path / "best")
    killed.offer([1.0], 2, weights(2.0))
    state = killed.state_dict()
    killed.offer([0.5], 4, weights(4.0))
    again = Best(tmp_path / "best")
    again.load_state_dict(state)
    assert not again.offer([1.5], 4, weights(4.5))
    assert value_of(again) == 2.0


def test_the_same_version_is_written_again(tmp_path: Path) -> None:
    killed = Best(tmp_path / "best")
    killed.offer([0.5], 4, weights(4.0))
    again = Best(tmp_path / "best")
    again.offer([0.5], 4, weights(4.0))
    assert again.state_dict() == killed.state_dict()
    again.offer([0.4], 4, weights(4.25))
    assert value_of(again) == 4.25 and sorted(f.name for f in (tmp_path / "best").iterdir()) == ["00000004"]


def test_damaged_or_missing_weights_are_refused(tmp_path: Path) -> None:
    best = Best(tmp_path / "best")
    best.offer([1.0], 7, weights(1.0))
    file = tmp_path / "best" / "00000007" / "weights.safetensors"
    data = file.read_bytes()
    file.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(CheckpointError, match=r"best weights \(of version 7\) are damaged"):
        value_of(best)
    file.unlink()
    with pytest.raises(CheckpointError, match="are gone"):
        value_of(best)
