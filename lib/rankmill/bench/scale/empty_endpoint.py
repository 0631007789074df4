"""An endpoint that does nothing: an ASGI application in Ray Serve that calls another deployment, as a gateway does."""

import time
from typing import Any

import numpy as np
from numpy.typing import NDArray
from ray.serve.handle import DeploymentHandle

from rankmill.serving.exchange import Message, Receive, Send


class EmptyScorer:
    """Scores nothing.

    Args:
        pairs: as many numbers are the answer.
    """

    def __init__(self, pairs: int) -> None:
        self._answer = np.zeros(pairs, np.float32)

    async def score(self, tokens: NDArray[np.uint16]) -> NDArray[np.float32]:  # noqa: ARG002 - they are sent, no more
        """Answer."""
        return self._answer


class EmptyGateway:
    """Reads a body, has tokens scored, answers.

    Args:
        tokens: so many, of two bytes, are sent to the scorer.
        answer_bytes: of the answer's body.
        scorer: handle of its deployment.
    """

    def __init__(self, tokens: int, answer_bytes: int, scorer: DeploymentHandle[Any]) -> None:
        self._tokens = np.zeros(tokens, np.uint16)
        self._answer = b"0" * answer_bytes
        self._score = scorer.options(method_name="score", request_serialization="pickle")

    def __serve_build_asgi_app__(self) -> "_Application":
        """What answers; Ray Serve asks for it by this name."""
        return _Application(self)

    async def answer(self, receive: Receive, send: Send) -> None:
        """One request; the header Server-Timing says how long the scorer's answer took."""
        while (await receive()).get("more_body"):
            pass
        started = time.perf_counter()
        await self._score.remote(self._tokens)
        took = f"score;dur={1000 * (time.perf_counter() - started):.3f}"
        headers = [(b"content-length", str(len(self._answer)).encode()), (b"server-timing", took.encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": self._answer})


class _Application:
    def __init__(self, gateway: EmptyGateway) -> None:
        self._gateway = gateway

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await self._gateway.answer(receive, send)
        elif scope["type"] == "lifespan":
            for moment in ("startup", "shutdown"):
                await receive()
                await send({"type": f"lifespan.{moment}.complete"})
