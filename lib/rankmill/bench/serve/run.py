"""The order of `rankmill bench --serve`: start the servers, warm up, rounds of everything."""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from rankmill.batch.machine import cores
from rankmill.bench.machine import this_machine
from rankmill.bench.measure import tolerance
from rankmill.bench.pairs import read_pairs, texts_of
from rankmill.bench.serve import servers
from rankmill.bench.serve.asks import Ask, alike, mixed, of_size
from rankmill.bench.serve.client import Client
from rankmill.bench.serve.found import ServeFound
from rankmill.bench.serve.light import save_light_model
from rankmill.bench.serve.rivals import RivalServer, parse
from rankmill.bench.serve.sides import Bare, Served
from rankmill.bench.serve.turns import OverheadTurns, PassingTurns, ThroughputTurns
from rankmill.bench.subject import Subject, load, plain_folder
from rankmill.scoring.options import ScorerOptions
from rankmill.settings.bench_serve import ServeBenchSettings
from rankmill.settings.scorer import ScorerSettings

Say = Callable[[str], None]

_MODEL = "measured"
_LIGHT = "light"
_WARM_UP = 3
"""Light requests before any is timed."""


def run(settings: ServeBenchSettings, say: Say) -> ServeFound:
    """Measure.

    Args:
        settings: what.
        say: takes a line for people now and then.

    Raises:
        UsageError: a flag does not fit.
        InputError: the pairs cannot be used.
        ModelError: the model cannot be used.
        RankmillError: the server did not start, refused a request, or gave other logits.
    """
    rivals = [RivalServer(name) for name in parse(settings.against)]
    queries, texts = texts_of(read_pairs(settings.input, settings.pairs))
    threads = settings.threads or cores()
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="rankmill-bench-")))
        light_model = save_light_model(scratch / "light")
        subject = load(ScorerOptions.of(settings, threads=threads))
        light = load(ScorerOptions(str(light_model), threads=threads))
        url = servers.free_url()
        say("starting `rankmill serve`")
        stack.enter_context(_ours(settings, light_model, threads, url, scratch))
        client = Client(url, "/v1/rerank", settings.concurrency)
        stack.callback(client.close)
        for rival in rivals:
            say(f"starting {rival.name}")
            folder = _plain(subject, scratch / "plain")
            stack.enter_context(rival.running(settings, folder, scratch, threads, subject.card.max_length))
        return _measure(settings, subject, light, client, rivals, (queries, texts), say)


def _measure(
    settings: ServeBenchSettings,
    subject: Subject,
    light: Subject,
    client: Client,
    rivals: list[RivalServer],
    columns: tuple[list[str], list[str]],
    say: Say,
) -> ServeFound:
    bare, served = Bare(subject.scorer), Served(client, "logit", {"model": _MODEL, "return_logits": True})
    exact = tolerance(subject.card.precision)
    size = (settings.documents, settings.document_bytes)
    heavy = OverheadTurns(subject.card.model, bare, served, alike(*columns, *size))
    without = OverheadTurns(
        "one layer of 8",
        Bare(light.scorer),
        Served(client, "logit", {"model": _LIGHT, "return_logits": True}),
        alike(*columns, *size),
    )
    many = ThroughputTurns(bare, served, mixed(*columns))
    passing = PassingTurns(served, of_size(*columns, settings.small), of_size(*columns, settings.large))

    say("warming up")
    _warm_up(settings, heavy, without, many, passing)
    for rival in rivals:
        _check(rival, subject, many.asks[0], exact)
        if rival.problem:
            say(f"{rival.name}: {rival.problem}")
    single: Iterator[Ask] = alike(*columns, *size)
    latencies = []
    for number in range(settings.rounds):
        without.run(settings.light_requests, exact)
        heavy.run(2, exact)
        many.run(number)
        passing.run()
        ask = next(single)
        if rivals:
            latencies.append(served.ask(ask).seconds)
        for rival in rivals:
            rival.run(ask, many.asks)
        say(_line(number, settings, without, many, passing))
    return ServeFound(
        machine=this_machine(settings.threads or cores()),
        model=subject.card.model,
        engine=subject.chosen.engine,
        precision=subject.card.precision,
        rounds=settings.rounds,
        mean_tokens=sum(bare.tokens(ask) for ask in many.asks) / many.pairs,
        documents=settings.documents,
        document_bytes=settings.document_bytes,
        overhead=heavy.found(),
        light=without.found(),
        throughput=many.found(settings.concurrency),
        passing=passing.found(),
        rivals=tuple(rival.found(latencies, many.served_seconds, many.pairs) for rival in rivals),
    )


def _warm_up(
    settings: ServeBenchSettings,
    heavy: OverheadTurns,
    without: OverheadTurns,
    many: ThroughputTurns,
    passing: PassingTurns,
) -> None:
    passing.warm()
    few = many.asks[: settings.concurrency]
    heavy.bare.all(few)
    heavy.served.flood(few)
    for _ in range(_WARM_UP):
        ask = next(without.asks)
        without.bare.ask(ask)
        without.served.ask(ask)


def _check(rival: RivalServer, subject: Subject, ask: Ask, exact: float) -> None:
    encoded = subject.scorer.encode(*ask.columns)
    rival.check(ask, Bare(subject.scorer).ask(ask).logits, ~encoded.truncated, exact)


def _line(
    number: int, settings: ServeBenchSettings, without: OverheadTurns, many: ThroughputTurns, passing: PassingTurns
) -> str:
    ratio = passing.found().ratio
    return (
        f"round {number + 1}: overhead so far {without.found().overhead_ms:.1f} ms, throughput "
        f"{many.found(settings.concurrency).to_bare:.2f} of bare, a small request "
        f"{'-' if ratio is None else f'{ratio:.1f}'} times its idle time"
    )


def _ours(settings: ServeBenchSettings, light: Path, threads: int, url: str, scratch: Path) -> Any:
    """`rankmill serve` with both models, without a cache, and with limits that nothing here reaches."""
    given = {name: value for name in ScorerSettings.model_fields if (value := getattr(settings, name)) is not None}
    shared: dict[str, Any] = {"threads": threads, "cache_bytes": 0, "queue_tokens": 10**9}
    if this_machine(threads).gpu:
        shared["gpus_per_replica"] = 0.5
    limits = {
        "max_body_bytes": 10**9,
        "max_request_tokens": 10**9,
        "max_documents": 1000,
        "timeout_seconds": 3600,
        "body_seconds": 600,
    }
    models = [given | shared | {"name": _MODEL}, shared | {"name": _LIGHT, "model": str(light)}]
    config = scratch / "serve.yaml"
    config.write_text(yaml.safe_dump(limits | {"models": models}))
    return servers.running(servers.rankmill(config, url), f"{url}/readyz", scratch / "serve.log")


def _plain(subject: Subject, scratch: Path) -> Callable[[], Path]:
    @cache
    def folder() -> Path:
        scratch.mkdir(exist_ok=True)
        return plain_folder(subject, scratch)

    return folder
