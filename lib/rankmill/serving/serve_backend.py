"""Scorers in Ray Serve's replicas, with another try where one of them dies."""

import asyncio
import time
from collections.abc import Collection, Mapping
from typing import Any

import grpc  # type: ignore[import-untyped]
from ray.exceptions import RayActorError
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError
from ray.serve.handle import DeploymentHandle

from rankmill.serving.backend import ModelInfo, OtherVersionError, Scored
from rankmill.serving.request_error import Kind, RequestError
from rankmill.types import EncodedPairs

_RETRIES = 2
"""Scoring twice is harmless: the same pairs have the same logits."""
_PAUSE = 0.05
"""Seconds before the first retry, in which Ray learns which replicas are left; doubled for the second."""
_AWAKE_SECONDS = 1.0

_DEAD = (RayActorError, grpc.aio.AioRpcError)
"""The replica died, or closed the connection before it answered."""


class ServeBackend:
    """Asks the deployments of scorers; lives in a gateway's replica.

    Args:
        models: by name, the default one first.
        handles: of each model's deployment (`ScorerDeployment`).
        sleepers: models whose deployment may have no replica while nobody asks for them.
    """

    def __init__(
        self,
        models: Mapping[str, ModelInfo],
        handles: Mapping[str, DeploymentHandle[Any]],
        sleepers: Collection[str] = (),
    ) -> None:
        self._models = models
        self._handles = handles
        self._sleepers = frozenset(sleepers)

    def models(self) -> Mapping[str, ModelInfo]:
        """See `Backend`."""
        return self._models

    async def score(self, model: ModelInfo, pairs: EncodedPairs, deadline: float) -> Scored:
        """See `Backend`."""
        end = time.monotonic() + deadline
        for attempt in range(_RETRIES + 1):
            try:
                answer = await self._ask(model, pairs, end - time.monotonic())
            except _DEAD:
                answer = RequestError(
                    Kind.UNAVAILABLE, f"The replicas of {model.name!r} were lost while they scored.", retry_after=1.0
                )
            if isinstance(answer, Scored):
                return answer
            if isinstance(answer, ModelInfo):
                raise OtherVersionError(answer)
            if answer.kind is not Kind.UNAVAILABLE or attempt == _RETRIES:
                raise answer
            await asyncio.sleep(_PAUSE * 2**attempt)
        raise AssertionError("the last attempt returns or raises")

    async def ready(self, model: str) -> bool:
        """See `Backend`; a model that may sleep is ready, because a request wakes it."""
        handle = self._handles.get(model)
        if handle is None:
            return False
        if model in self._sleepers:
            return True
        try:
            async with asyncio.timeout(_AWAKE_SECONDS):
                return bool(await handle.awake.remote())
        except (TimeoutError, DeploymentUnavailableError, *_DEAD):
            return False

    async def _ask(self, model: ModelInfo, pairs: EncodedPairs, left: float) -> Scored | RequestError | ModelInfo:
        late = RequestError(Kind.DEADLINE, "Not all pairs were scored in the time that this request had.")
        if left <= 0:
            return late
        response = self._handles[model.name].score.remote(pairs, left, model.card.fingerprint)
        try:
            async with asyncio.timeout(left):
                return await response  # type: ignore[no-any-return]
        except TimeoutError:
            response.cancel()  # type: ignore[no-untyped-call]
            return late
        except asyncio.CancelledError:
            response.cancel()  # type: ignore[no-untyped-call]
            raise
        except BackPressureError as error:
            return RequestError(
                Kind.OVERLOADED, f"Too many requests wait for {model.name!r}.", retry_after=error.retry_after_s or 1.0
            )
        except DeploymentUnavailableError:
            return RequestError(Kind.UNAVAILABLE, f"The model {model.name!r} could not be started.", retry_after=5.0)
