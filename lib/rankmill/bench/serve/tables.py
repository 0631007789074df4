"""What was found, for a terminal."""

from collections.abc import Iterator

from rich import box
from rich.console import RenderableType
from rich.markup import escape
from rich.table import Table

from rankmill.bench.serve.found import Overhead, Rival, ServeFound


def tables(found: ServeFound) -> Iterator[RenderableType]:
    """Tables in the order they are read, and a line for each server that could not be compared."""
    yield _facts(found)
    yield _overhead(found)
    yield _load(found)
    if found.rivals:
        yield _rivals(found)
        yield from (escape(f"{rival.name}: {rival.problem}") for rival in found.rivals if rival.problem is not None)


def _facts(found: ServeFound) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_header=False)
    table.add_row("model", escape(f"{found.model}, {found.engine}, {found.precision}"))
    table.add_row("machine", escape(f"{found.machine.gpu or found.machine.cpu}, {found.machine.threads} threads"))
    table.add_row("rounds", str(found.rounds))
    return table


def _overhead(found: ServeFound) -> Table:
    table = _table(
        f"one request of {found.documents} x {found.document_bytes:,} bytes",
        "bare ms",
        "served ms",
        "overhead ms",
        "±",
        "parsing",
        "hop",
        "HTTP",
    )
    for one in (found.light, found.overhead):
        table.add_row(*_overhead_row(one))
    table.caption = (
        "medians; overhead: of the differences of the same request, ±: half of what their middle half spans; then what "
        "it is made of: the gateway's parsing, the way to the scorer and its queue, HTTP with reading and writing. The "
        "network of one layer shows what is not the forward pass; with the model itself, that drowns in its noise."
    )
    table.caption_justify = "left"
    return table


def _overhead_row(one: Overhead) -> list[str]:
    parts = (one.prepare_ms, one.score_ms, one.rest_ms)
    figures = (one.bare_ms, one.served_ms, one.overhead_ms, one.spread_ms / 2, *parts)
    return [escape(f"{one.model}, {one.requests} requests"), *(f"{figure:,.1f}" for figure in figures)]


def _load(found: ServeFound) -> Table:
    table = _table("", "bare", "served", "ratio")
    load, passing = found.throughput, found.passing
    table.add_row(
        f"pairs/s, {load.concurrency} requests at a time, {load.pairs:,} pairs of {found.mean_tokens:.0f} tokens",
        f"{load.bare_pairs_per_second:,.1f}",
        f"{load.served_pairs_per_second:,.1f}",
        f"{load.to_bare:.2f}",
    )
    table.add_section()
    table.add_row("", "idle ms", "during ms", "")
    table.add_row(
        f"{passing.small} documents during {passing.large:,} ({passing.requests} requests)",
        f"{passing.idle_ms:,.1f}",
        "-" if passing.during_ms is None else f"{passing.during_ms:,.1f}",
        "-" if passing.ratio is None else f"{passing.ratio:.2f}",
    )
    return table


def _rivals(found: ServeFound) -> Table:
    table = _table("server", "p50 ms", "theirs / ours", "pairs/s", "ours / theirs", "logits")
    for rival in found.rivals:
        table.add_row(rival.name, *_rival_row(rival))
    table.caption = (
        f"p50: one request of {found.documents} documents at a time; pairs/s: the mixed requests, "
        f"{found.throughput.concurrency} at a time; logits: largest difference from ours"
    )
    table.caption_justify = "left"
    return table


def _rival_row(rival: Rival) -> list[str]:
    figures = (rival.p50_ms, rival.latency_ratio, rival.pairs_per_second, rival.speed_ratio)
    shown = ["-" if figure is None else f"{figure:,.2f}" for figure in figures]
    return [*shown, "-" if rival.logit_difference is None else f"{rival.logit_difference:.0e}"]


def _table(*headings: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for place, heading in enumerate(headings):
        table.add_column(heading, justify="right" if place else "left", no_wrap=place > 0)
    return table
