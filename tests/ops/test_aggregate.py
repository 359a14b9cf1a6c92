from __future__ import annotations

import pytest
import torch

from trimtab.batch import Sequence, flatten
from trimtab.ops.aggregate import Aggregate, loss_total, token_weights

ROWS = [
    Sequence(ids=[1, 2, 3], act=[False, True, True], token_columns={"loss_T": [9.0, 1.0, 3.0]}),
    Sequence(ids=[1, 2], act=[False, False], token_columns={"loss_T": [9.0, 9.0]}),
    Sequence(ids=[4] * 5, act=[False, True, False, True, True], token_columns={"loss_T": [9.0, 2.0, 9.0, 2.0, 8.0]}),
]
BATCH = flatten(ROWS)


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("tokens", 16 / 5),
        ("sequences", (4 / 2 + 12 / 3) / 2),  # the sequence without actions is no answer
        ("constant", 16 / (2 * 10)),
    ],
)
def test_value_and_independence_of_the_split(mode: Aggregate, expected: float) -> None:
    total = loss_total(BATCH.act_T, BATCH.sequence_T, BATCH.sequences, mode, length=10)
    for budget in (1, 5, 100):
        share = totals = 0.0
        for part in BATCH.micro_batches(budget):
            weight_T = token_weights(part.act_T, part.sequence_T, part.sequences, mode)
            assert not weight_T[~part.act_T].any()
            share += (weight_T * part["loss_T"]).sum().item()
            totals += loss_total(part.act_T, part.sequence_T, part.sequences, mode, length=10)
        assert totals == total
        assert share / total == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("mode", ["tokens", "sequences"])
def test_a_constant_loss_is_its_own_mean(mode: Aggregate) -> None:
    weight_T = token_weights(BATCH.act_T, BATCH.sequence_T, BATCH.sequences, mode)
    total = loss_total(BATCH.act_T, BATCH.sequence_T, BATCH.sequences, mode)
    assert (weight_T * 7.0).sum().item() / total == pytest.approx(7.0)


def test_refusals() -> None:
    act_T, sequence_T = torch.ones(2, dtype=torch.bool), torch.zeros(2, dtype=torch.long)
    with pytest.raises(ValueError, match="length"):
        loss_total(act_T, sequence_T, 1, "constant")
    with pytest.raises(ValueError, match="token-mean"):
        token_weights(act_T, sequence_T, 1, "token-mean")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="token-mean"):
        loss_total(act_T, sequence_T, 1, "token-mean")  # pyright: ignore[reportArgumentType]
