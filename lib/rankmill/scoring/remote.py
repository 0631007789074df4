"""A scorer behind an HTTP endpoint: `--model http://host:port/path`, or `https://…`.

The protocol is one request and one answer, both JSON:

    POST {"pairs": [["query", "document"], …]}  ->  200 {"scores": [0.25, …]}

with one finite number per pair, in order; higher is more relevant. At most 64 pairs go into a request; with
`--listwise`, where the score of a document depends on the others, all documents of one query and nothing else. Broken
connections, 429 and 500, 502, 503 and 504 are tried again, after a wait that grows and is spread by chance, or after
what `Retry-After` asks for, up to a minute; any other answer is final, redirects included. A bearer token is taken from
the environment variable RANKMILL_SCORER_TOKEN of the process that scores; it appears in no message and no log.

The fingerprint knows the address and nothing else: an endpoint that changes its model should change its address.
"""

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import urllib3
from numpy.typing import NDArray
from urllib3.exceptions import HTTPError, MaxRetryError

from rankmill.errors import EndpointError, ModelError
from rankmill.scoring.card import ModelCard, text_card
from rankmill.scoring.card_scorer import CardScorer
from rankmill.scoring.list_scorer import ListScorer
from rankmill.scoring.options import ScorerOptions
from rankmill.scoring.text_encoder import TextEncoder, checked_scores, decode, refuse_settings
from rankmill.types import EncodedPairs

SCHEMES = ("http://", "https://")
TOKEN_VARIABLE = "RANKMILL_SCORER_TOKEN"  # noqa: S105 - the variable's name, not its value
_PROTOCOL = 1
"""Part of the fingerprint; raised when endpoints would be asked something else than before."""
_TRANSIENT = (429, 500, 502, 503, 504)
_TOKEN = re.compile(r"[!-~]+")
_SHOWN_CHARACTERS = 200


@dataclass(frozen=True, slots=True)
class Patience:
    """How an endpoint is asked, and for how long. All times in seconds. The defaults are those of a batch job."""

    pairs_per_request: int = 64
    attempts: int = 8
    """Tries per request, the first included."""
    first_wait: float = 0.5
    """Doubled after every further try."""
    longest_wait: float = 60.0
    """Of a wait, also where Retry-After asks for more."""
    connect_timeout: float = 10.0
    answer_timeout: float = 120.0
    """Without a byte from the endpoint."""


@dataclass(frozen=True, slots=True)
class Remote:
    """An address; nothing has been sent there."""

    url: str
    listwise: bool = False
    """Whether the score of a document depends on the others of its request."""
    patience: Patience = Patience()
    """Of the client that `load` makes."""

    def card(self, precision: str) -> ModelCard:  # noqa: ARG002 - its precision is its own
        """Describe it."""
        identity = {"url": self.url, "protocol": _PROTOCOL}
        return text_card(self.url, kind="http", architecture="", identity=identity, listwise=self.listwise)

    def encoder(self) -> TextEncoder:
        """What makes bytes of texts."""
        return TextEncoder()

    def load(self, options: ScorerOptions) -> "ListScorer | RemoteScorer":
        """Make a client; the first request is sent with the first pairs.

        Raises:
            ModelError: the bearer token is nothing that a header could hold.
        """
        card = self.card(options.precision)
        scorer = RemoteScorer(card, self.patience, os.environ.get(TOKEN_VARIABLE))
        return ListScorer(card, self.encoder(), scorer.ask_list) if self.listwise else scorer


class RemoteScorer(CardScorer):
    """Asks an endpoint for scores, and checks what comes back.

    Args:
        card: what it is; its `model` is the address.
        patience: how it is asked.
        token: of the `Authorization: Bearer` header, or None.

    Raises:
        ModelError: the token is nothing that a header could hold.
    """

    def __init__(self, card: ModelCard, patience: Patience, token: str | None = None) -> None:
        super().__init__(card, TextEncoder())
        self._patience = patience
        self._headers = {"Content-Type": "application/json", "Accept": "application/json", "User-Agent": "rankmill"}
        if token:
            if not _TOKEN.fullmatch(token):
                raise ModelError(
                    f"{TOKEN_VARIABLE} holds blanks, line ends or other characters that no bearer token has."
                )
            self._headers["Authorization"] = f"Bearer {token}"
        self._pool = urllib3.PoolManager(
            timeout=urllib3.Timeout(connect=patience.connect_timeout, read=patience.answer_timeout),
            retries=urllib3.Retry(
                total=patience.attempts - 1,
                allowed_methods=None,  # POST too: scoring a pair twice does no harm
                status_forcelist=_TRANSIENT,
                raise_on_status=False,  # the last answer says what is wrong
                backoff_factor=patience.first_wait / 2,  # urllib3 waits factor * 2 after the second failure
                backoff_jitter=patience.first_wait,
                backoff_max=patience.longest_wait,
                retry_after_max=int(patience.longest_wait),
            ),
        )

    def logits(self, pairs: EncodedPairs) -> NDArray[np.float32]:
        """Ask for scores, one request after the other.

        Returns:
            Float32, shape (n,), input order. Empty in, empty out.

        Raises:
            EndpointError: the endpoint cannot be reached, or refuses.
            ModelError: it answers something else than one number per pair.
            NonFiniteScoreError: naming the pairs whose score is NaN, infinite or null.
        """
        queries, texts = decode(pairs)
        scores: list[Any] = []
        for start in range(0, len(pairs), self._patience.pairs_per_request):
            stop = start + self._patience.pairs_per_request
            scores += self._ask([list(pair) for pair in zip(queries[start:stop], texts[start:stop], strict=True)])
            self.after_pass()
        return checked_scores(self.card.model, scores, len(pairs))

    def ask_list(self, query: str, documents: Sequence[str]) -> list[Any]:
        """Ask for the scores of a query's documents in one request; raises as `logits`."""
        return self._ask([[query, document] for document in documents])

    def _ask(self, pairs: list[list[str]]) -> list[Any]:
        url = self.card.model
        body = json.dumps({"pairs": pairs}, ensure_ascii=False).encode()
        try:
            answer = self._pool.request("POST", url, body=body, headers=self._headers, redirect=False)
        except HTTPError as error:
            reason = error.reason if isinstance(error, MaxRetryError) else error
            raise EndpointError(
                f"The scoring endpoint {url} gave no answer in {self._patience.attempts} attempts "
                f"({type(reason).__name__}: {reason}). Check the address, and that the service runs.",
                passing=True,
            ) from error
        if answer.status != 200:
            raise _refusal(url, answer.status, answer.headers, answer.data, self._patience.attempts)
        try:
            scores = json.loads(answer.data)["scores"]
        except (ValueError, TypeError, KeyError) as error:
            raise ModelError(
                f'The scoring endpoint {url} answered {_shown(answer.data)}; it must answer {{"scores": [number, …]}}.'
            ) from error
        if not isinstance(scores, list) or len(scores) != len(pairs):
            found = f"{len(scores)} scores" if isinstance(scores, list) else "scores that are no list"
            raise ModelError(f"The scoring endpoint {url} answered {found} for {len(pairs)} pairs, not one per pair.")
        return scores


def is_url(model: str) -> bool:
    """Whether `--model` is an address of the kind that this module asks."""
    return model.lower().startswith(SCHEMES)


def read(options: ScorerOptions) -> Remote:
    """Check an address, without sending anything there.

    Raises:
        ModelError: it is malformed, or holds a user or a password.
        UsageError: a setting has no meaning for it.
    """
    try:
        parts = urlsplit(options.model)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise ModelError(f"The model {options.model!r} is not a URL: {error}.") from error
    if parts.username is not None or parts.password is not None:
        # not repeated here: the address ends up in logs and in every part of the output
        raise ModelError(
            f"The URL of the scoring endpoint at {host} holds a user name or a password. Put a token into the "
            f"environment variable {TOKEN_VARIABLE} instead."
        )
    if not host or parts.fragment:
        raise ModelError(
            f"The model {options.model!r} is not a URL of an endpoint, such as http://localhost:8080/score."
        )
    refuse_settings(options)
    return Remote(options.model, options.listwise)


def _refusal(url: str, status: int, headers: Mapping[str, str], body: bytes, attempts: int) -> EndpointError:
    if status in (401, 403):
        return EndpointError(
            f"The scoring endpoint {url} answered {status}: it wants a bearer token that it accepts, in the "
            f"environment variable {TOKEN_VARIABLE} of every worker."
        )
    if 300 <= status < 400:
        return EndpointError(
            f"The scoring endpoint {url} answered {status} and points to {headers.get('Location', 'nowhere')}; "
            "redirects are not followed: give --model the final address."
        )
    passing = status in _TRANSIENT
    often = f" {attempts} times, at last" if passing else ""
    return EndpointError(f"The scoring endpoint {url} answered{often} {status}", f": {_shown(body)}.", passing)


def _shown(body: bytes) -> str:
    text = body.decode(errors="replace")
    return repr(text[:_SHOWN_CHARACTERS]) + (" …" if len(text) > _SHOWN_CHARACTERS else "")
