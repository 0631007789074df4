"""Scorers in this process: for tests, and for a server without Ray."""

from collections.abc import Mapping

from rankmill.serving.backend import ModelInfo, OtherVersionError, Scored
from rankmill.serving.replica import Replica
from rankmill.types import EncodedPairs


class LocalBackend:
    """One replica of each model, on the event loop of whoever calls.

    Args:
        models: by name, the default one first.
        replicas: one per model.
    """

    def __init__(self, models: Mapping[str, ModelInfo], replicas: Mapping[str, Replica]) -> None:
        self._models = models
        self._replicas = replicas

    @classmethod
    def load(cls, models: Mapping[str, ModelInfo], *, queue_tokens: int, cache_bytes: int) -> "LocalBackend":
        """Load and test the scorers.

        Args:
            models: by name, the default one first.
            queue_tokens: that may wait for a scorer.
            cache_bytes: for known scores of each model; 0 keeps none.

        Raises:
            ModelError: a model cannot be used.
            UsageError: a model's options do not fit this machine.
        """
        replicas = {
            name: Replica.of(info, queue_tokens=queue_tokens, cache_bytes=cache_bytes) for name, info in models.items()
        }
        return cls(models, replicas)

    def models(self) -> Mapping[str, ModelInfo]:
        """See `Backend`."""
        return self._models

    async def score(self, model: ModelInfo, pairs: EncodedPairs, deadline: float) -> Scored:
        """See `Backend`."""
        mine = self._models[model.name]
        if mine.card.fingerprint != model.card.fingerprint:
            raise OtherVersionError(mine)
        return await self._replicas[model.name].score(pairs, deadline)

    async def ready(self, model: str) -> bool:
        """Always: its scorers are loaded and tested before it is there."""
        return model in self._replicas

    async def close(self) -> None:
        """Finish what waits."""
        for replica in self._replicas.values():
            await replica.close()
