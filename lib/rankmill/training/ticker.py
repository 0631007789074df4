"""Saying how far a long loop is: a bar on a terminal, a log line every ten seconds otherwise."""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

log = logging.getLogger(__name__)

SECONDS_BETWEEN_LINES = 10.0


class Ticker:
    """Counts steps of one loop; made by `ticking`."""

    def __init__(self, what: str, total: int, start: int, bar: Progress | None) -> None:
        self._what, self._total, self._done, self._start = what, total, start, start
        self._began = self._told = time.monotonic()
        self._bar = bar
        self._task = bar.add_task(what, total=total, completed=start, note="") if bar else None

    def step(self, count: int = 1, note: str = "") -> None:
        """`count` more steps are done; `note` is shown behind the numbers."""
        self._done += count
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=self._done, note=note)
            return
        now = time.monotonic()
        if now - self._told >= SECONDS_BETWEEN_LINES:
            self._told = now
            rate = (self._done - self._start) / (now - self._began)
            left = (self._total - self._done) / rate / 60 if rate > 0 else float("nan")
            log.info(
                "%s: %d of %d, %.2f/s, %.1f min left%s",
                self._what,
                self._done,
                self._total,
                rate,
                left,
                f", {note}" if note else "",
            )


@contextmanager
def ticking(what: str, total: int, *, start: int = 0) -> Iterator[Ticker]:
    """Show progress of `total` steps, `start` of them done before, while the block runs."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield Ticker(what, total, start, None)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=console) as bar:
        yield Ticker(what, total, start, bar)
