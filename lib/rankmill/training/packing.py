"""Cutting ragged sequences into padded micro-batches of a bounded token count."""

from collections.abc import Sequence


def pack_by_length(lengths: Sequence[int], tokens_per_batch: int) -> list[list[int]]:
    """Group sequences of similar length, padding included in the price.

    Args:
        lengths: tokens per sequence.
        tokens_per_batch: most tokens in one batch after padding to its longest; a longer sequence gets its own batch.

    Returns:
        Positions into `lengths`, every position once, longest batches first (so that a run out of memory comes early).
    """
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    batches: list[list[int]] = []
    for i in order:
        # Sorted descending: the first of a batch is its longest and sets the padded width.
        if batches and lengths[batches[-1][0]] * (len(batches[-1]) + 1) <= tokens_per_batch:
            batches[-1].append(i)
        else:
            batches.append([i])
    return batches
