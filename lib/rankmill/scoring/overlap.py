"""Work done ahead: the next slice is tokenised in a thread while the forward pass of the current one runs.

A thread is enough, because the tokenizer and the network both work outside of Python's interpreter lock; transfers to a
GPU overlap by themselves, since `Engine.run` waits for nothing. What is in memory is bounded by two slices, however
long the input.
"""

from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

# Enough pairs for batches of like lengths, even on a GPU; 16 MB of text at the very most, but for a single pair
SLICE_PAIRS = 4096
SLICE_CHARACTERS = 8_000_000

Pair = tuple[str, str]
T = TypeVar("T")
R = TypeVar("R")


def ahead(function: Callable[[T], R], items: Iterable[T]) -> Generator[R, None, None]:
    """Yield `function(item)` for every item, in order; the next one is computed while the caller works on this one.

    Items are taken one at a time, in the caller's thread; `function` runs in one background thread. At most two results
    are held: the caller's and the next. A caller that stops early should close the generator (`contextlib.closing`);
    that waits for the item at work and takes no other.

    Raises:
        Exception: whatever `items` or `function` raised, as it was.
    """
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="rankmill-ahead") as thread:
        following: Future[R] | None = None
        for item in items:
            if following is None:
                following = thread.submit(function, item)
                continue
            ready = following.result()
            following = thread.submit(function, item)
            yield ready
            del ready  # or it would be a third result, while the next item is waited for
        if following is not None:
            yield following.result()


def slices(
    pairs: Iterable[Pair],
    most_pairs: int = SLICE_PAIRS,
    most_characters: int = SLICE_CHARACTERS,
    *,
    listwise: bool = False,
) -> Iterator[list[Pair]]:
    """Cut a stream of pairs into slices, in order, never empty.

    Args:
        pairs: query and text.
        most_pairs: per slice.
        most_characters: of the texts of a slice; a single longer text makes a slice of its own.
        listwise: cut between neighbours with different queries only, however many pairs that takes.
    """
    held: list[Pair] = []
    characters = 0
    for pair in pairs:
        full = len(held) >= most_pairs or characters + len(pair[1]) > most_characters
        if held and full and not (listwise and pair[0] == held[-1][0]):
            yield held
            held, characters = [], 0
        held.append(pair)
        characters += len(pair[1])
    if held:
        yield held
