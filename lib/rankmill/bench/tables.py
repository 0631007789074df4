"""What was found, for a terminal."""

from collections.abc import Iterator

from rich import box
from rich.console import RenderableType
from rich.markup import escape
from rich.table import Table

from rankmill.bench.found import Compared, Found

_MEBIBYTE = 2**20


def tables(found: Found) -> Iterator[RenderableType]:
    """Tables, and a paragraph for the plan, in the order they are read."""
    yield _throughput(found)
    yield from (escape(f"{peer.name}: {peer.problem}") for peer in found.peers if peer.problem is not None)
    yield _facts(found)
    if found.latency:
        yield _latency(found)
    if found.plan is not None:
        yield _plan(found)


def _throughput(found: Found) -> Table:
    table = _table("", "pairs/s", f"{found.workload.unit}/s", *(("ratio", "logits") if found.peers else ()))
    bare, job = found.bare, found.job
    table.add_row("bare scorer, one process", f"{bare.pairs_per_second:.1f}", f"{bare.tokens_per_second:,.0f}")
    for peer in found.peers:
        name = peer.name.partition(":")[0]
        table.add_row(f"{name}, {peer.precision}" if peer.precision else name, *_peer(peer))
    if job is not None:
        table.add_row("whole job", f"{job.pairs_per_second:.1f}", f"{job.tokens_per_second:,.0f}")
        table.add_row("job / bare", f"{job.to_bare:.2f}")
    if found.peers:
        table.caption = (
            "ratio: pairs/s of the bare scorer over the peer's, median over rounds; logits: largest difference in the "
            f"{found.workload.whole:,} pairs that are not cut"
        )
        table.caption_justify = "left"
    return table


def _peer(peer: Compared) -> list[str]:
    if peer.problem is not None or peer.pairs_per_second is None or peer.tokens_per_second is None:
        return ["-", "-", "", "wrong" if peer.agreement is not None and not peer.agreement.agrees else "not run"]
    difference = None if peer.agreement is None else peer.agreement.difference
    within = "not compared" if difference is None else f"{difference:.0e}"
    return [f"{peer.pairs_per_second:.1f}", f"{peer.tokens_per_second:,.0f}", f"{peer.speed_ratio:.2f}", within]


def _facts(found: Found) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_header=False)
    chosen, bare, work = found.chosen, found.bare, found.workload
    why = {name: f" ({words})" for name, words in chosen.why.items()}
    table.add_row("model", escape(found.model))
    table.add_row(
        "pairs",
        f"{work.pairs:,}; {work.mean_tokens:.0f} {work.unit} on average, {work.p95_tokens:.0f} at the 95th percentile; "
        f"{work.pairs - work.whole:,} cut; rounds: {work.rounds}",
    )
    table.add_row("machine", escape(f"{found.machine.gpu or found.machine.cpu}, {found.machine.threads} threads"))
    table.add_row("engine", f"{chosen.engine} on {chosen.device}{why.get('engine', '')}")
    table.add_row("precision", f"{chosen.precision}{why.get('precision', '')}")
    if chosen.batch_tokens is not None:
        table.add_row("batch tokens", f"{chosen.batch_tokens:,}{why.get('batch_tokens', '')}")
    table.add_row("padding waste", "not known" if bare.padding_waste is None else f"{bare.padding_waste:.1%}")
    table.add_row("of the matrix rate", _matrix(found))
    table.add_row("peak memory", _memory(bare.peak_bytes, bare.gpu_peak_bytes))
    if found.job is not None:
        table.add_row("driver's peak memory", f"{found.job.driver_peak_bytes / _MEBIBYTE:,.0f} MiB")
    if found.grown is not None:
        table.add_row(f"the same with {found.grown.pairs:,} pairs", f"{found.grown.growth:+.1%}")
    return table


def _matrix(found: Found) -> str:
    bare = found.bare
    if bare.matrix_fraction is None or bare.model_flops_per_second is None or bare.matrix_flops_per_second is None:
        return "not known"
    return (
        f"{bare.matrix_fraction:.0%}: {bare.model_flops_per_second / 1e9:,.0f} of "
        f"{bare.matrix_flops_per_second / 1e9:,.0f} GFLOP/s, a large product through {bare.matrix_engine}"
    )


def _memory(host: int, gpu: int | None) -> str:
    shown = f"{host / _MEBIBYTE:,.0f} MiB"
    return shown if gpu is None else f"{shown}; {gpu / _MEBIBYTE:,.0f} MiB of the GPU's"


def _latency(found: Found) -> Table:
    table = _table("candidates of a request", "p50 ms", "p99 ms", "requests")
    for size in found.latency:
        if size.p50_ms is None or size.p99_ms is None:
            table.add_row(str(size.candidates), "-", "-", "0: too slow")
        else:
            table.add_row(str(size.candidates), f"{size.p50_ms:,.1f}", f"{size.p99_ms:,.1f}", str(size.requests))
    return table


def _plan(found: Found) -> str:
    plan = found.plan
    if plan is None:
        return ""
    kind = "GPU" if found.chosen.device == "cuda" else "machine"
    words = (
        f"{plan.pairs:,} pairs like these in {plan.hours:g} hours: {plan.workers:,} {kind}"
        f"{'' if plan.workers == 1 else 's'} like this one, {plan.pairs_per_second:,.1f} pairs/s each, for "
        f"{plan.run_hours:.1f} hours; {plan.worker_hours:,.1f} {kind} hours in all"
    )
    return words + (f", and cost {plan.cost:,.2f}." if plan.cost is not None else ".")


def _table(*headings: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in headings:
        words = heading in {"", "logits"}
        table.add_column(heading, justify="left" if words else "right", no_wrap=heading != "logits")
    return table
