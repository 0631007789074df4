"""Scorers in Ray Serve's replicas, with another try where one of them dies."""

import asyncio
import time
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError
from ray.serve.handle import DeploymentHandle

from rankmill.serving.backend import ModelInfo, OtherVersionError, Scored
from rankmill.serving.presence import DEAD, Presence
from rankmill.serving.request_error import Kind, RequestError
from rankmill.serving.wire import narrowed
from rankmill.types import EncodedPairs

_RETRIES = 2
"""Scoring twice is harmless: the same pairs have the same logits."""
_PAUSE = 0.05
"""Seconds before the first retry, in which Ray learns which replicas are left; doubled for the second."""


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
        # plain pickle, not Ray's cloudpickle: pairs hold no code, and of their arrays that makes copies
        self._score = {
            name: handle.options(method_name="score", request_serialization="pickle")
            for name, handle in handles.items()
        }
        self._presence = {name: Presence(handle) for name, handle in handles.items()}
        self._sleepers = frozenset(sleepers)

    def models(self) -> Mapping[str, ModelInfo]:
        """See `Backend`."""
        return self._models

    async def score(self, model: ModelInfo, pairs: EncodedPairs, deadline: float) -> Scored:
        """See `Backend`."""
        end = time.monotonic() + deadline
        lost = 0
        for attempt in range(_RETRIES + 1):
            try:
                answer = await self._ask(model, pairs, end - time.monotonic())
            except DEAD:
                lost += len(pairs)
                answer = RequestError(
                    Kind.UNAVAILABLE, f"The replicas of {model.name!r} were lost while they scored.", retry_after=1.0
                )
            if isinstance(answer, Scored):
                return replace(answer, lost=lost) if lost else answer
            if isinstance(answer, ModelInfo):
                raise OtherVersionError(answer)
            if answer.kind is not Kind.UNAVAILABLE or answer.everywhere or attempt == _RETRIES:
                raise answer
            await asyncio.sleep(_PAUSE * 2**attempt)
        raise AssertionError("the last attempt returns or raises")

    async def ready(self, model: str) -> bool:
        """See `Backend`; a model that may sleep is ready, because a request wakes it."""
        presence = self._presence.get(model)
        return presence is not None and (model in self._sleepers or await presence.answers())

    async def _ask(self, model: ModelInfo, pairs: EncodedPairs, left: float) -> Scored | RequestError | ModelInfo:
        presence = self._presence[model.name]
        late = RequestError(Kind.DEADLINE, "Not all pairs were scored in the time that this request had.")
        if left <= 0:
            return late
        if presence.missing_seconds >= left:
            raise _missing(model)
        response = self._score[model.name].remote(narrowed(pairs), left, model.card.fingerprint)
        try:
            async with asyncio.timeout(left) as limit:
                with presence.waiting(limit):
                    return await response  # type: ignore[no-any-return]
        except TimeoutError as error:
            response.cancel()  # type: ignore[no-untyped-call]
            if presence.missing_seconds:
                raise _missing(model) from error
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


def _missing(model: ModelInfo) -> RequestError:
    return RequestError(
        Kind.UNAVAILABLE,
        f"No replica of {model.name!r} is running: it could not be started, or is being started. Try again soon.",
        retry_after=5.0,
    )
