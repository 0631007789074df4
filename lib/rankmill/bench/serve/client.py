"""Asks a server, one request at a time or many; only the time until the answer is there counts."""

import re
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import numpy as np
import orjson
import urllib3
from numpy.typing import NDArray

from rankmill.errors import RankmillError

_SECONDS = 600.0
"""For an answer; a request of 1,000 documents can take minutes."""
_SHOWN = 200
_PHASE = re.compile(r"([\w-]+);dur=([\d.]+)")


@dataclass(frozen=True, slots=True)
class Reply:
    """One answer."""

    seconds: float
    body: bytes
    phases: Mapping[str, float] = field(default_factory=dict)
    """Seconds by the header Server-Timing; empty for a server that sends none."""

    def logits(self, key: str) -> NDArray[np.float32]:
        """One per document, in the order of the request; `key` names them in the server's results."""
        results = orjson.loads(self.body)["results"]
        found = np.full(len(results), np.nan, dtype=np.float32)
        for result in results:
            found[result["index"]] = result[key]
        return found


class Client:
    """Connections to one server, kept open.

    Args:
        url: of the server.
        path: that reranks.
        most: connections at most.
    """

    def __init__(self, url: str, path: str, most: int) -> None:
        address = urlsplit(url)
        self._path = path
        self._pool = urllib3.HTTPConnectionPool(
            address.hostname or "", address.port, maxsize=most, block=True, timeout=_SECONDS, retries=False
        )
        self._threads = ThreadPoolExecutor(most, thread_name_prefix="client")

    def ask(self, body: bytes) -> Reply:
        """Send a request and wait.

        Raises:
            RankmillError: the server refused it or broke off.
        """
        started = time.perf_counter()
        try:
            answer = self._pool.request("POST", self._path, body=body, headers={"content-type": "application/json"})
        except urllib3.exceptions.HTTPError as error:
            raise RankmillError(f"{self._pool.host}:{self._pool.port} did not answer a request: {error}.") from error
        seconds = time.perf_counter() - started
        if answer.status != 200:
            said = answer.data[:_SHOWN].decode(errors="replace")
            raise RankmillError(f"{self._pool.host}:{self._pool.port} answered a request with {answer.status}: {said}")
        timing = _PHASE.findall(answer.headers.get("server-timing", ""))
        return Reply(seconds, answer.data, {phase: float(took) / 1000 for phase, took in timing})

    def flood(self, bodies: Sequence[bytes]) -> float:
        """Send all of them, as many at a time as there are connections; seconds until the last answer.

        Raises:
            RankmillError: one of them had no answer.
        """
        started = time.perf_counter()
        for answered in [self._threads.submit(self.ask, body) for body in bodies]:
            answered.result()
        return time.perf_counter() - started

    def close(self) -> None:
        """Ask nothing more, and close the connections that wait for no answer."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._pool.close()
