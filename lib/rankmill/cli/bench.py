"""`rankmill bench`: what this machine does with the bare scorer, and what the job or the endpoint around it costs."""

import json
import logging
import sys
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, Protocol, TypeVar

from rich.console import Console, RenderableType

from rankmill.batch.last_bench import keep
from rankmill.cli.stop import sigterm_as_interrupt
from rankmill.settings.bench import BenchSettings
from rankmill.settings.bench_serve import ServeBenchSettings

Say = Callable[[str], None]


class _Settings(Protocol):
    @property
    def quiet(self) -> bool: ...
    @property
    def as_json(self) -> bool: ...


class _Found(Protocol):
    def as_json(self) -> dict[str, Any]: ...


S = TypeVar("S", bound=_Settings)
F = TypeVar("F", bound=_Found)


def run(settings: BenchSettings) -> int:
    """Measure scorer and job, and show; returns the exit code 0."""
    from rankmill.bench.found import Found  # noqa: PLC0415 - as the next one
    from rankmill.bench.run import run as measure  # noqa: PLC0415 - torch, which the other one needs as well
    from rankmill.bench.tables import tables  # noqa: PLC0415

    def kept(settings: BenchSettings, say: Say) -> Found:
        found = measure(settings, say)
        keep(found.fingerprint, found.chosen.device, json.dumps(found.as_json()).encode())
        return found

    return _show(settings, kept, tables)


def serve(settings: ServeBenchSettings) -> int:
    """Measure the endpoint, and show; returns the exit code 0."""
    from rankmill.bench.serve.run import run as measure  # noqa: PLC0415 - as in `run`
    from rankmill.bench.serve.tables import tables  # noqa: PLC0415

    with sigterm_as_interrupt():  # servers were started, which nobody else would end
        return _show(settings, measure, tables)


def _show(settings: S, measure: Callable[[S, Say], F], tables: Callable[[F], Iterable[RenderableType]]) -> int:
    if settings.quiet:
        logging.getLogger("rankmill").setLevel(logging.ERROR)
    progress = Console(highlight=False, quiet=settings.quiet, stderr=True)
    found = measure(settings, partial(progress.print, soft_wrap=True, markup=False))
    console = Console(highlight=False, quiet=settings.quiet, stderr=settings.as_json)
    for part in tables(found):
        console.print(part, soft_wrap=isinstance(part, str))
    if settings.as_json:
        sys.stdout.write(json.dumps(found.as_json()) + "\n")
    return 0
