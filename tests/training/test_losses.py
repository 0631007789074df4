"""The losses against hand-made values."""

import math

import pytest
import torch

from rankmill.training.losses import combined_loss, listwise_loss, pointwise_loss


def test_listwise_is_zero_when_the_distribution_is_the_wanted_one() -> None:
    targets = torch.tensor([0.9, 0.5, 0.1, 0.2, 0.4])
    logits = targets / 0.1 + torch.tensor([3.0, 3.0, 3.0, -1.0, -1.0])  # a constant per list changes nothing
    assert float(listwise_loss(logits, targets, [3, 2], 0.1)) == pytest.approx(0.0, abs=1e-6)


def test_listwise_is_the_mean_divergence_over_lists() -> None:
    # One list with targets (0, 0) -> (.5, .5) against softmax (.8, .2); one list that is right.
    logits = torch.tensor([math.log(0.8), math.log(0.2), 0.0, 0.0, 0.0])
    wanted = 0.5 * (math.log(0.5 / 0.8) + math.log(0.5 / 0.2))
    assert float(listwise_loss(logits, torch.zeros(5), [2, 3], 1.0)) == pytest.approx(wanted / 2, abs=1e-6)


def test_lists_of_different_sizes_have_finite_gradients() -> None:
    logits = torch.randn(9, requires_grad=True)
    loss = combined_loss(logits, torch.rand(9), [2, 6, 1], temperature=0.1, centre=0.5, pointwise_weight=2.0)
    torch.autograd.backward(loss)
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()


def test_pointwise_is_smallest_at_the_squashed_target() -> None:
    targets = torch.tensor([0.2, 0.5, 0.9])
    best = (targets - 0.5) / 0.1
    least = float(pointwise_loss(best, targets, 0.5, 0.1))
    assert least < float(pointwise_loss(best + 0.3, targets, 0.5, 0.1))
    assert least < float(pointwise_loss(best - 0.3, targets, 0.5, 0.1))


def test_combined_adds_the_weighted_parts() -> None:
    logits, targets = torch.randn(4), torch.rand(4)
    parts = listwise_loss(logits, targets, [4], 0.2) + 3 * pointwise_loss(logits, targets, 0.5, 0.2)
    combined = combined_loss(logits, targets, [4], temperature=0.2, centre=0.5, pointwise_weight=3.0)
    assert float(combined) == pytest.approx(float(parts))
