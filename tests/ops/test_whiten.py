from __future__ import annotations

import pytest
import torch

from trimtab.ops.whiten import rescale, standardise

GENERATOR = torch.Generator().manual_seed(0)
X_T = torch.randn(300, generator=GENERATOR) * 3 + 2.1
MASK_T = torch.rand(300, generator=GENERATOR) < 0.5


def test_standardise_centres_and_scales_the_marked_tokens() -> None:
    z_T = standardise(X_T, MASK_T)
    assert abs(z_T[MASK_T].mean().item()) < 1e-6
    assert z_T[MASK_T].std(correction=0).item() == pytest.approx(1, abs=1e-6)
    assert not z_T[~MASK_T].any()


def test_rescale_scales_but_does_not_centre() -> None:
    z_T = rescale(X_T, MASK_T)
    assert z_T[MASK_T].std(correction=0).item() == pytest.approx(1, abs=1e-6)
    assert torch.equal(z_T[MASK_T].sign(), X_T[MASK_T].sign())
    ratio = z_T[MASK_T] / X_T[MASK_T]
    torch.testing.assert_close(ratio, ratio[0].expand_as(ratio))
    assert z_T[MASK_T].mean() > 0.5, "the mean of 2.1/3 is kept"
    assert not z_T[~MASK_T].any()


@pytest.mark.parametrize("whiten", [standardise, rescale])
def test_tokens_off_the_mask_are_not_read(whiten) -> None:
    spoilt_T = torch.where(MASK_T, X_T, float("nan"))
    assert torch.equal(whiten(spoilt_T, MASK_T), whiten(X_T, MASK_T))


def test_units_do_not_matter() -> None:
    torch.testing.assert_close(standardise(4 * X_T - 17, MASK_T), standardise(X_T, MASK_T), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(rescale(4 * X_T, MASK_T), rescale(X_T, MASK_T))


def test_known_values() -> None:
    x_T, mask_T = torch.tensor([1.0, 100.0, 3.0]), torch.tensor([True, False, True])
    assert standardise(x_T, mask_T).tolist() == [-1, 0, 1]
    assert rescale(x_T, mask_T).tolist() == [1, 0, 3]


def test_equal_values_and_empty_masks() -> None:
    same_T = torch.full((7,), 0.1)
    all_T = torch.ones(7, dtype=torch.bool)
    assert standardise(same_T, all_T).abs().max() < 1e-7
    assert torch.equal(rescale(same_T, all_T), same_T)
    assert not standardise(same_T, ~all_T).any() and not rescale(same_T, ~all_T).any()
