"""How fast many files are looked at and cut into shards, and what memory that takes."""

import time
from dataclasses import dataclass

from rankmill.batch import scan
from rankmill.batch.executor import InProcess
from rankmill.batch.machine import peak_bytes
from rankmill.batch.planning import cut
from rankmill.bench import memory
from rankmill.bench.scale.inputs import many_files
from rankmill.bench.scale.measured import Figure, Measured, Say, run, sayer, show
from rankmill.bench.scale.s3 import requests_of, s3_server
from rankmill.settings.rerank import RerankSettings
from rankmill.settings.scale import FootersSettings
from rankmill.settings.storage import StorageSettings
from rankmill.storage.store import Store

_MEBIBYTE = 2**20
_SMALLER = 10
_NOTE = (
    "Footers: from listing the input to a layout that all files have, in one process. Cut: all query ids read, shards "
    "cut, also in one process; a job does it on every CPU of its cluster. Memory: resident, of that process."
)


@dataclass(frozen=True, slots=True)
class _Look:
    """One input, looked at."""

    footers_seconds: float
    cut_seconds: float
    footers_peak_bytes: int
    cut_peak_bytes: int
    requests: int
    """Of the footers' part."""
    queries: int


def measure(settings: FootersSettings, say: Say) -> Measured:
    """Make the files, look at a tenth of them and at all of them."""
    few = max(1, settings.files // _SMALLER)
    with s3_server() as url:
        say(f"writing {settings.files:,} files of {settings.row_groups:,} row groups")
        many_files(Store("s3://scale/few"), range(few), settings.row_groups)
        many_files(Store("s3://scale/many"), range(settings.files), settings.row_groups)
        _look(url, "s3://scale/few")  # clients, threads and imports are there from now on
        small, large = (_look(url, f"s3://scale/{folder}") for folder in ("few", "many"))
    row_groups = settings.files * settings.row_groups
    return run(
        "footers",
        [
            Figure("files", settings.files, ""),
            Figure("row groups", row_groups, ""),
            Figure("footers", settings.files / large.footers_seconds, "files/s", ">= 300"),
            Figure("requests per file", large.requests / settings.files, ""),
            Figure("cut", settings.files / large.cut_seconds, "files/s"),
            Figure("queries", large.queries, ""),
            *_memory("footers", few, settings.files, small.footers_peak_bytes, large.footers_peak_bytes),
            *_memory("cut", few, settings.files, small.cut_peak_bytes, large.cut_peak_bytes),
        ],
        _NOTE,
    )


def footers_command(settings: FootersSettings) -> int:
    """`jobs/scale.py footers`."""
    return show(measure(settings, sayer(settings)), settings)


def _memory(part: str, few: int, many: int, small: int, large: int) -> list[Figure]:
    return [
        Figure(f"{part}, peak memory, {few:,} files", small / _MEBIBYTE, "MiB"),
        Figure(f"{part}, peak memory, {many:,} files", large / _MEBIBYTE, "MiB"),
        Figure(f"{part}, growth per file", (large - small) / 1024 / (many - few), "KiB"),
    ]


def _look(url: str, source: str) -> _Look:
    settings = RerankSettings(input=source, output="unused", storage=StorageSettings(endpoint=url), quiet=True)
    memory.start()
    asked, begun = requests_of(url), time.perf_counter()
    inspected = scan.inspect(settings)
    footers = time.perf_counter() - begun
    requests, peak = requests_of(url) - asked, peak_bytes()
    memory.start()
    begun = time.perf_counter()
    plan, _ = cut(settings, inspected, InProcess())
    return _Look(footers, time.perf_counter() - begun, peak, peak_bytes(), requests, plan.queries)
