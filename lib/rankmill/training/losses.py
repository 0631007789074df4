"""The losses: pure functions of logits and targets."""

import torch
from torch import Tensor
from torch.nn import functional


def listwise_loss(logits: Tensor, targets: Tensor, sizes: list[int], temperature: float) -> Tensor:
    """KL(softmax(targets / temperature) || softmax(logits)), averaged over lists.

    Args:
        logits: shape (n,), float32; lists one after the other.
        targets: shape (n,), float32, on the teacher's scale.
        sizes: candidates per list; they add up to n.
        temperature: targets this far apart should be one logit apart.

    Returns:
        A scalar, float32; 0 when every list has the wanted distribution.
    """
    width = max(sizes)
    padded_logits = logits.new_full((len(sizes), width), float("-inf"))
    padded_targets = logits.new_full((len(sizes), width), float("-inf"))
    mask = torch.arange(width, device=logits.device) < torch.tensor(sizes, device=logits.device).unsqueeze(1)  # [L, W]
    padded_logits = padded_logits.masked_scatter(mask, logits)
    padded_targets = padded_targets.masked_scatter(mask, targets / temperature)
    wanted = padded_targets.softmax(1)
    # Padding has probability 0 on both sides; 0 * (-inf) would be NaN, so those terms are cut out.
    difference = torch.where(mask, padded_targets.log_softmax(1) - padded_logits.log_softmax(1), 0.0)
    return (wanted * difference).sum(1).mean()


def pointwise_loss(logits: Tensor, targets: Tensor, centre: float, temperature: float) -> Tensor:
    """Binary cross-entropy against sigmoid((target - centre) / temperature), averaged over pairs: a scalar, float32.

    It ties the logits to an absolute scale, which the listwise loss alone leaves free.
    """
    return functional.binary_cross_entropy_with_logits(logits, torch.sigmoid((targets - centre) / temperature))


def combined_loss(
    logits: Tensor, targets: Tensor, sizes: list[int], *, temperature: float, centre: float, pointwise_weight: float
) -> Tensor:
    """`listwise + pointwise_weight * pointwise`: what training minimises; a scalar, float32."""
    loss = listwise_loss(logits, targets, sizes, temperature)
    if pointwise_weight:
        loss = loss + pointwise_weight * pointwise_loss(logits, targets, centre, temperature)
    return loss
