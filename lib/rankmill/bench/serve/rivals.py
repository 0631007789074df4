"""Other servers in the rounds: started, checked against our logits, timed, and out as soon as something is wrong."""

import statistics
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rankmill.bench.contender import reason
from rankmill.bench.measure import speed_ratio
from rankmill.bench.serve import servers
from rankmill.bench.serve.asks import Ask
from rankmill.bench.serve.client import Client
from rankmill.bench.serve.found import Rival
from rankmill.bench.serve.sides import Served
from rankmill.errors import UsageError
from rankmill.settings.bench_serve import ServeBenchSettings

NAMES = ("fastapi", "infinity")


def parse(against: str) -> list[str]:
    """Read `--against`: names with commas between them.

    Raises:
        UsageError: an unknown name.
    """
    names = list(dict.fromkeys(filter(None, map(str.strip, against.split(",")))))
    for name in names:
        if name not in NAMES:
            raise UsageError(f"--against {name} is not a server; with --serve, known are {', '.join(NAMES)}.")
    return names


class RivalServer:
    """One of them, through all rounds."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.problem: str | None = None
        self._served: Served | None = None
        self._stop = ExitStack()
        self._latencies: list[float] = []
        self._floods: list[float] = []
        self._difference: float | None = None

    @contextmanager
    def running(
        self, settings: ServeBenchSettings, folder: Callable[[], Path], scratch: Path, threads: int, max_length: int
    ) -> Iterator[None]:
        """Run it for the length of a `with` block; what keeps it from running becomes its `problem`."""
        with self._stop:
            try:
                self._start(settings, folder(), scratch, threads, max_length)
            except Exception as error:  # noqa: BLE001 - whatever another library meets in a model
                self._give_up(reason(error))
            yield

    def check(self, ask: Ask, expected: NDArray[np.float32], comparable: NDArray[np.bool_], tolerance: float) -> None:
        """Have it score a request, to be warm, and compare.

        Args:
            ask: the request.
            expected: our logits, shape (n,).
            comparable: shape (n,); documents that every library reads whole.
            tolerance: the largest difference that is none.
        """

        def compare(served: Served) -> None:
            difference = np.abs(served.logits(ask) - expected)[comparable]
            self._difference = float(difference.max()) if len(difference) else None
            if self._difference is not None and not self._difference <= tolerance:
                self._give_up(f"wrong: logits differ by {self._difference:.2g}, more than {tolerance:g}")

        self._try(compare)

    def run(self, one: Ask, mixed: Sequence[Ask]) -> None:
        """One round: one request alone, and the mixed ones at a time."""

        def measure(served: Served) -> None:
            self._latencies.append(served.ask(one).seconds)
            self._floods.append(served.flood(mixed))

        self._try(measure)

    def found(self, latencies: Sequence[float], floods: Sequence[float], pairs: int) -> Rival:
        """All rounds together.

        Args:
            latencies: ours of the same single requests.
            floods: ours of the same mixed ones.
            pairs: of the mixed ones.
        """
        fine = self.problem is None
        return Rival(
            name=self.name,
            p50_ms=1000 * statistics.median(self._latencies) if fine else None,
            pairs_per_second=pairs / statistics.median(self._floods) if fine else None,
            latency_ratio=speed_ratio(latencies, self._latencies) if fine else None,
            speed_ratio=speed_ratio(floods, self._floods) if fine else None,
            logit_difference=self._difference,
            problem=self.problem,
        )

    def _start(self, settings: ServeBenchSettings, folder: Path, scratch: Path, threads: int, max_length: int) -> None:
        url = servers.free_url()
        environment = {"OMP_NUM_THREADS": str(threads)}
        more: dict[str, object] = {}
        if self.name == "fastapi":
            command = servers.fastapi(folder, url, threads, max_length)
        else:
            command = servers.infinity(settings, folder, url)
            environment |= servers.INFINITY_ENVIRONMENT
            more = {"model": "model", "raw_scores": True}
        self._stop.enter_context(servers.running(command, f"{url}/health", scratch / f"{self.name}.log", environment))
        client = Client(url, "/rerank", settings.concurrency)
        self._stop.callback(client.close)
        self._served = Served(client, "relevance_score", more)

    def _try(self, step: Callable[[Served], None]) -> None:
        if self._served is None:
            return
        try:
            step(self._served)
        except Exception as error:  # noqa: BLE001 - one that breaks off must not end our own measurement
            self._give_up(reason(error))

    def _give_up(self, problem: str) -> None:
        self.problem = problem
        self._served = None
        self._stop.close()
