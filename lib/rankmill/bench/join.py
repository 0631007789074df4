"""Our join beside Ray Data's, on the same files: the measurement behind the choice of a partitioned lookup."""

import importlib.util
import json
import logging
import multiprocessing
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from rankmill.batch.machine import cores
from rankmill.bench.join_inputs import JoinInputs, make
from rankmill.bench.tree import watched
from rankmill.cluster import connect
from rankmill.errors import RankmillError, UsageError
from rankmill.settings.join_bench import JoinBenchSettings
from rankmill.settings.rerank import RerankSettings

_PARTITION_BYTES = 64 << 20
"""Of Ray Data's join, as of ours."""


@dataclass(frozen=True, slots=True)
class Side:
    """What one way to join took."""

    name: str
    seconds: float
    """Median over the rounds."""
    peak_bytes: int
    """Most memory of all its processes together, over the rounds."""


def run(settings: JoinBenchSettings) -> int:
    """Make the tables, join them both ways, and report; returns the exit code 0.

    Raises:
        UsageError: Ray Data's join cannot run here.
        RankmillError: a side failed or lost pairs.
    """
    if settings.against == "ray-data" and importlib.util.find_spec("polars") is None:
        raise UsageError("Ray Data's join needs polars: `pip install polars`, or say --against nothing.")
    say = Console(highlight=False, stderr=True).print
    with tempfile.TemporaryDirectory(prefix="rankmill-join-") as scratch:
        folder = Path(settings.folder or scratch)
        folder.mkdir(parents=True, exist_ok=True)
        inputs = make(settings, folder)
        size = _size(inputs.corpus)
        say(f"{settings.documents:,} documents ({size:,} bytes), {settings.pairs:,} pairs, {cores()} cores")
        ways: dict[str, Callable[[JoinInputs, Path], float]] = {"rankmill": _ours}
        if settings.against == "ray-data":
            ways["Ray Data's join"] = _ray_datas
        taken: dict[str, list[tuple[float, int]]] = {name: [] for name in ways}
        for number in range(settings.rounds):
            for name, way in ways.items():
                with tempfile.TemporaryDirectory(prefix="joined-", dir=folder) as output:
                    taken[name].append(_apart(way, inputs, Path(output), settings.pairs))
                seconds, peak = taken[name][-1]
                say(f"round {number + 1}: {name} {seconds:.1f} s, {peak / 2**30:.2f} GiB")
    sides = [
        Side(name, statistics.median(seconds for seconds, _ in found), max(peak for _, peak in found))
        for name, found in taken.items()
    ]
    if settings.as_json:
        sys.stdout.write(json.dumps({**settings.model_dump(), "sides": [asdict(side) for side in sides]}) + "\n")
    else:
        Console(highlight=False).print(_table(sides))
    return 0


def _apart(way: Callable[[JoinInputs, Path], float], inputs: JoinInputs, output: Path, pairs: int) -> tuple[float, int]:
    """Join in a process of its own; returns seconds of the join and the peak of the process tree."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_send, args=(sender, way, inputs, output, pairs))
    process.start()
    sender.close()
    with watched(process.pid) as peak:
        try:
            answer = receiver.recv()
        except EOFError:
            answer = "its process ended without an answer"
        process.join()
    if isinstance(answer, str):
        raise RankmillError(f"The join failed: {answer}")
    return answer, peak.bytes


def _send(sender, way: Callable[[JoinInputs, Path], float], inputs: JoinInputs, output: Path, pairs: int) -> None:  # type: ignore[no-untyped-def] # noqa: ANN001
    """In the other process: join, and send the seconds, or a sentence."""
    logging.getLogger("rankmill").setLevel(logging.ERROR)
    try:
        with connect(None, num_cpus=cores()):
            seconds = way(inputs, output)
        found = _pairs_in(output)
        sender.send(seconds if found == pairs else f"{found:,} of {pairs:,} pairs have their texts")
    except Exception as error:  # noqa: BLE001 - it is shown by the other process
        sender.send(f"{type(error).__name__}: {error}")


def _ours(inputs: JoinInputs, output: Path) -> float:
    """Plan and join as `rankmill rerank` does before it scores."""
    from rankmill.batch import join, scan  # noqa: PLC0415 - Ray is imported by what is below, after `connect`
    from rankmill.batch.pipeline import RayData  # noqa: PLC0415
    from rankmill.batch.planning import cut  # noqa: PLC0415
    from rankmill.batch.read import Source  # noqa: PLC0415
    from rankmill.batch.workers import Pool  # noqa: PLC0415
    from rankmill.storage.store import Store  # noqa: PLC0415

    settings = RerankSettings(
        input=str(inputs.run), queries=str(inputs.queries), corpus=str(inputs.corpus), output=str(output)
    )
    executor = RayData(Pool(1, 1, 1, 0, "cpu", 1))
    started = time.perf_counter()
    inspected = scan.inspect_run(settings)
    if inspected.texts is None:
        raise AssertionError("a run has texts to be joined with. This is a bug.")
    plan, _ = cut(settings, inspected, executor)
    source = Source(inspected.layout, plan.files, ids_only=True)
    left = {shard.index for shard in plan.shards}
    join.join(plan, source, inspected.texts, Store(str(output)), executor, left)
    return time.perf_counter() - started


def _ray_datas(inputs: JoinInputs, output: Path) -> float:
    """The same rows with Ray Data: joined by document, then by query, so that a query's rows end up in one block."""
    import ray  # noqa: PLC0415

    partitions = max(-(-_size(inputs.corpus) // _PARTITION_BYTES), 2 * cores())
    started = time.perf_counter()
    pairs, queries, corpus = (ray.data.read_parquet(str(path)) for path in (inputs.run, inputs.queries, inputs.corpus))
    with_documents = pairs.join(corpus, "left_outer", partitions, on=("doc_id",))
    with_documents.join(queries, "left_outer", partitions, on=("query_id",)).write_parquet(str(output))
    return time.perf_counter() - started


def _pairs_in(output: Path) -> int:
    """Pairs with both texts in what a side wrote: ours in the shards' files, Ray Data's in all there are."""
    import pyarrow.dataset as ds  # noqa: PLC0415

    files = sorted(output.rglob("shards-*.parquet")) or sorted(output.rglob("*.parquet"))
    table = ds.dataset([str(path) for path in files])
    text = "document" if "document" in table.schema.names else "text"
    return int(table.count_rows(filter=ds.field("query").is_valid() & ds.field(text).is_valid()))


def _size(path: Path) -> int:
    """Bytes of a file or a folder."""
    return sum(item.stat().st_size for item in ([path] if path.is_file() else path.iterdir()))


def _table(sides: list[Side]) -> Table:
    table = Table("join", "seconds", "peak of all processes", "to ours")
    for side in sides:
        ratio = f"{side.seconds / sides[0].seconds:.1f} x time, {side.peak_bytes / sides[0].peak_bytes:.1f} x memory"
        table.add_row(side.name, f"{side.seconds:.1f}", f"{side.peak_bytes / 2**30:.2f} GiB", ratio)
    return table
