"""`rankmill serve`."""

import json
import logging
import math
import os
import shlex
import socket
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from rankmill.batch.machine import cores
from rankmill.cli.startup import wait_until_up
from rankmill.cli.stop import sigterm_as_interrupt
from rankmill.cluster import connect
from rankmill.cluster.connection import choose_target
from rankmill.cluster.haproxy import haproxy_ingress
from rankmill.errors import RankmillError, UsageError
from rankmill.scoring.engines.choose import this_machine
from rankmill.serving.backend import ModelInfo
from rankmill.serving.index import IndexInfo, index_of
from rankmill.serving.keys import Keys, refuse_open
from rankmill.serving.models import models_of
from rankmill.serving.placement import cpus_needed, share_cores
from rankmill.settings.serve import ServeSettings

_log = logging.getLogger("rankmill")

_APPLICATION = "rankmill"
_ANSWER_SECONDS = 60.0
"""From the application running to its first answer through the proxy, which has to hear of it."""
_EXAMPLE = {
    "query": "what is the capital of France",
    "documents": ["Berlin has many museums.", "Paris is the capital of France."],
}


def run(settings: ServeSettings) -> int:
    """Serve until SIGINT or SIGTERM; returns the exit code 0."""
    if settings.quiet:
        _log.setLevel(logging.ERROR)
    with serving(settings) as endpoint:
        sys.stdout.write(endpoint.greeting() + "\n")
        sys.stdout.flush()
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            _log.info("stopping: requests that are on their way are finished")
    return 0


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A running server."""

    url: str
    models: tuple[str, ...]
    keys: bool
    """Whether requests need a key."""

    def greeting(self) -> str:
        """Where it is, and a request to try."""
        key = ' -H "Authorization: Bearer $KEY"' if self.keys else ""
        body = shlex.quote(json.dumps(_EXAMPLE))
        return (
            f"Serving {', '.join(self.models)} at {self.url}. Try\n"
            f"curl {self.url}/v1/rerank -H 'Content-Type: application/json'{key} -d {body}"
        )


@contextmanager
def serving(settings: ServeSettings) -> Iterator[Endpoint]:
    """Run the endpoint for the length of a `with` block, on a cluster or on a Ray started here.

    SIGTERM raises KeyboardInterrupt, as SIGINT does. At the end, what was started is stopped, and nothing else: on a
    cluster, the application.

    Raises:
        UsageError: the address is taken, or can be reached by others and there are no keys; a flag does not fit.
        ModelError: a model cannot be used.
        NoProgressError: not everything is up after `start_timeout`.
        RankmillError: the application did not start.
    """
    keys = Keys(settings.keys_file)
    refuse_open(settings.host, keys)
    if keys.required:  # a replica on another machine that finds none must not answer everybody
        settings = settings.model_copy(update={"require_key": True})
    here = choose_target(settings.address, os.environ) is None
    gpus = this_machine().gpus
    if here:
        _refuse_taken(settings.host, settings.port)
        settings = share_cores(settings, cores=cores(), gpus=gpus)
    models = models_of(settings)  # refuses what cannot be served before anything is started
    index = index_of(settings)
    with ExitStack() as stack:
        if here and settings.haproxy:
            stack.enter_context(haproxy_ingress())
        cpus = max(cores(), math.ceil(cpus_needed(settings, gpus=gpus)))
        cluster = stack.enter_context(connect(settings.address, num_cpus=cpus))
        stack.enter_context(sigterm_as_interrupt())
        stack.enter_context(_deployed(settings, models, index, local=cluster.local))
        yield Endpoint(_url(settings), tuple(models), keys.required)


@contextmanager
def _deployed(
    settings: ServeSettings, models: Mapping[str, ModelInfo], index: IndexInfo | None, *, local: bool
) -> Iterator[None]:
    from ray import serve  # noqa: PLC0415 - reads its settings when it is imported: after `connect`
    from ray.exceptions import RayError  # noqa: PLC0415
    from ray.serve.config import HTTPOptions  # noqa: PLC0415

    from rankmill.serving.application import application  # noqa: PLC0415

    logging.getLogger("ray.serve").setLevel(logging.WARNING)  # `quiet` comes too late for what Ray says while it starts
    target = application(settings, models, index)
    quiet = {"enable_access_log": False, "log_level": "WARNING"}
    keep = not local
    try:
        try:
            serve.start(http_options=HTTPOptions(host=settings.host, port=settings.port), logging_config=quiet)
            _refuse_elsewhere(settings)
            keep = not local and _APPLICATION in serve.status().applications
            run = serve.RunTarget(target, name=_APPLICATION, route_prefix="/", logging_config=quiet)
            serve.run_many([run], wait_for_applications_running=False)
            wait_until_up(_APPLICATION, models, settings.start_timeout)
        except (RuntimeError, TimeoutError, RayError) as error:
            raise RankmillError(f"The application did not start: {error}") from error
        _wait_for_answer(_url(settings))
        keep = False
        yield
    finally:
        if local:
            serve.shutdown()  # type: ignore[no-untyped-call]
        elif not keep:  # a version that fails leaves the one before it; one that others can ask may go on
            serve.delete(_APPLICATION)


def _refuse_taken(host: str, port: int) -> None:
    """HAProxy shares a port that another one listens on: requests would go to either."""
    try:
        socket.create_server((host, port)).close()
    except OSError as error:
        raise UsageError(f"Cannot listen on {host}:{port}: {error.strerror or error}. Give another --port.") from error


def _refuse_elsewhere(settings: ServeSettings) -> None:
    """Ray Serve keeps the address that it was started with, which may be one that everybody can reach."""
    from ray.serve.context import _get_global_client  # noqa: PLC0415 - as in `_deployed`; it has no public name

    client = _get_global_client()
    there = settings if client is None else client.http_config
    if (there.host, there.port) != (settings.host, settings.port):
        raise UsageError(
            f"Ray Serve runs on this cluster already and listens on {there.host}:{there.port}, not on "
            f"{settings.host}:{settings.port}: give --host {there.host} --port {there.port}, or run `serve shutdown`."
        )


def _url(settings: ServeSettings) -> str:
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(settings.host, settings.host)  # noqa: S104 - compared, not bound
    return f"http://{host}:{settings.port}"


def _wait_for_answer(url: str) -> None:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    end = time.monotonic() + _ANSWER_SECONDS
    while True:
        try:
            opener.open(f"{url}/healthz", timeout=5).close()
        except (urllib.error.URLError, ConnectionError, TimeoutError) as error:
            if time.monotonic() > end:
                raise RankmillError(
                    f"The application runs, but {url} did not answer within {_ANSWER_SECONDS:g} s: {error}."
                ) from error
            time.sleep(0.1)
        else:
            return
