"""What the user sees while a job runs: a live display on a terminal, a line every ten seconds in a log."""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.text import Text

from rankmill.batch.receipts import Totals

LOG_SECONDS = 10.0
_log = logging.getLogger("rankmill")

Report = Callable[[Totals], None]
"""Takes the totals so far, shards finished before this run included."""


@dataclass(frozen=True, slots=True)
class Work:
    """What there is to do."""

    shards: int
    queries: int
    pairs: int


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast this run is, and how long it will take."""

    pairs_per_second: float
    tokens_per_second: float
    seconds_left: float | None
    """None until the first shard is finished."""


def pace(work: Work, before: Totals, now: Totals, seconds: float) -> Pace:
    """Judge the speed from what this run itself did.

    Args:
        work: all there is to do.
        before: what earlier runs had finished.
        now: what is finished now.
        seconds: since this run began.
    """
    pairs = now.pairs_in - before.pairs_in
    if pairs <= 0 or seconds <= 0:
        return Pace(0.0, 0.0, None)
    rate = pairs / seconds
    return Pace(rate, (now.tokens - before.tokens) / seconds, max(0.0, (work.pairs - now.pairs_in) / rate))


def line(work: Work, now: Totals, speed: Pace) -> str:
    """One line of a log."""
    return (
        f"{now.shards:,}/{work.shards:,} shards  {now.queries:,}/{work.queries:,} queries  "
        f"{now.pairs_in:,}/{work.pairs:,} pairs  {speed.pairs_per_second:,.0f} pairs/s  "
        f"{speed.tokens_per_second:,.0f} tokens/s  {_left(speed)} left  {now.rejected:,} rejected"
    )


@contextmanager
def watching(work: Work, before: Totals, *, quiet: bool) -> Iterator[Report]:
    """Show progress for the length of a `with` block; the report it gives is called whenever a shard is finished."""
    console = Console(stderr=True)
    if quiet:
        yield lambda _: None
    elif console.is_terminal:
        with _live(console, work, before) as report:
            yield report
    else:
        with _logged(work, before) as report:
            yield report


@contextmanager
def _live(console: Console, work: Work, before: Totals) -> Iterator[Report]:
    """A bar with the counts in a line below it."""
    started = time.monotonic()
    bar = Progress(
        TextColumn("[bold]rerank"),
        BarColumn(bar_width=None),
        TextColumn("{task.percentage:>3.0f}%"),
        TimeElapsedColumn(),
        console=console,
    )
    task = bar.add_task("", total=max(work.pairs, 1), completed=before.pairs_in)
    counts = Text("starting workers")
    with Live(Group(bar, counts), console=console, transient=True):

        def report(now: Totals) -> None:
            bar.update(task, completed=now.pairs_in)
            counts.plain = line(work, now, pace(work, before, now, time.monotonic() - started))

        yield report


@contextmanager
def _logged(work: Work, before: Totals) -> Iterator[Report]:
    """A line every ten seconds, whether or not a shard was finished meanwhile: silence looks like a hang."""
    started = time.monotonic()
    latest = before
    over = threading.Event()

    def tell() -> None:
        _log.info("%s", line(work, latest, pace(work, before, latest, time.monotonic() - started)))

    def tick() -> None:
        while not over.wait(LOG_SECONDS):
            tell()

    def report(now: Totals) -> None:
        nonlocal latest
        latest = now

    ticker = threading.Thread(target=tick, name="progress", daemon=True)
    ticker.start()
    try:
        yield report
    finally:
        over.set()
        ticker.join()
        tell()


def _left(speed: Pace) -> str:
    return "?" if speed.seconds_left is None else str(timedelta(seconds=round(speed.seconds_left)))
