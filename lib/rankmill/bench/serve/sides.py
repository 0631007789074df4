"""What is asked: a model behind a server, and the bare scorer in this process."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rankmill.bench.serve.asks import Ask
from rankmill.bench.serve.client import Client, Reply
from rankmill.bench.subject import score_all
from rankmill.scoring.chunks import score
from rankmill.scoring.scorer import Scorer


@dataclass(frozen=True, slots=True)
class Served:
    """A model behind a server."""

    client: Client
    key: str
    """That holds a result's logit."""
    more: Mapping[str, Any] = field(default_factory=dict)
    """Of a request's body."""

    def ask(self, ask: Ask) -> Reply:
        """One request."""
        return self.client.ask(ask.body(**self.more))

    def logits(self, ask: Ask) -> NDArray[np.float32]:
        """Of one request's documents."""
        return self.ask(ask).logits(self.key)

    def flood(self, asks: Sequence[Ask]) -> float:
        """Seconds for all of them, many at a time."""
        return self.client.flood([ask.body(**self.more) for ask in asks])


@dataclass(frozen=True, slots=True)
class BareReply:
    """One request's answer without a server."""

    encode_seconds: float
    forward_seconds: float
    logits: NDArray[np.float32]

    @property
    def seconds(self) -> float:
        """Both."""
        return self.encode_seconds + self.forward_seconds


@dataclass(frozen=True, slots=True)
class Bare:
    """A scorer in this process."""

    scorer: Scorer

    def ask(self, ask: Ask) -> BareReply:
        """One request."""
        columns = ask.columns
        started = time.perf_counter()
        encoded = self.scorer.encode(*columns)
        between = time.perf_counter()
        logits = score(self.scorer, encoded).logits
        return BareReply(between - started, time.perf_counter() - between, logits)

    def tokens(self, ask: Ask) -> int:
        """Of a request's pairs."""
        return int(self.scorer.encode(*ask.columns).lengths.sum())

    def all(self, asks: Sequence[Ask]) -> float:
        """Seconds for the pairs of all requests, at once."""
        columns = [ask.columns for ask in asks]
        if self.scorer.listwise:  # each request is a list, also where neighbours have the same query
            started = time.perf_counter()
            for some in columns:
                score_all(self.scorer, *some)
            return time.perf_counter() - started
        queries = [query for some, _ in columns for query in some]
        texts = [text for _, some in columns for text in some]
        started = time.perf_counter()
        score_all(self.scorer, queries, texts)
        return time.perf_counter() - started
