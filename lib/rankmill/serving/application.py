"""The application for Ray Serve: settings in, deployments out."""

from collections.abc import Mapping
from typing import Any

from ray import serve
from ray.serve.config import AutoscalingConfig, AutoscalingPolicy

from rankmill.scoring.engines.choose import this_machine
from rankmill.serving.backend import ModelInfo
from rankmill.serving.deployments import GatewayDeployment, RetrieverDeployment, ScorerDeployment
from rankmill.serving.index import IndexInfo
from rankmill.serving.placement import GATEWAY_CPUS, RETRIEVER_CPUS, place
from rankmill.serving.scaling import QueuedWorkPolicy
from rankmill.settings.serve import EndpointSettings, ModelSettings, deployment_name

_MANY_REQUESTS = 10_000
"""Ongoing requests of a replica: gateways, batchers and the index refuse long before."""
_STARTS = 3
"""Attempts of a replica to load its model, before the deployment fails and the one before it goes on."""
_GRACE_SECONDS = 5.0
"""Beyond the longest request, for a replica that is to go: its last answers have to leave too."""
_DOWNSCALE_SECONDS = 120.0
_UPSCALE_SECONDS = 5.0
_LOOK_BACK_SECONDS = 12.0
"""Replicas report every 10 s."""


def application(
    settings: EndpointSettings, models: Mapping[str, ModelInfo], index: IndexInfo | None = None
) -> serve.Application:
    """Put the deployments together.

    Args:
        settings: what to deploy.
        models: what `models_of` says of it.
        index: what `index_of` says of it.
    """
    grace = settings.gateway.timeout_seconds + _GRACE_SECONDS
    scorers = {
        model.public_name: _scorer(model, grace, settings.surge_percent).bind(
            models[model.public_name], model.queue_tokens, model.cache_bytes
        )
        for model in settings.served
    }
    sleepers = frozenset(model.public_name for model in settings.served if model.replicas[0] == 0)
    gateway: Any = serve.deployment(
        serve.ingress()(GatewayDeployment),
        name="gateway",
        num_replicas=settings.gateways,
        max_surge_percent=settings.surge_percent,
        max_ongoing_requests=_MANY_REQUESTS,
        ray_actor_options={"num_cpus": GATEWAY_CPUS},
        graceful_shutdown_timeout_s=grace,
    )
    if index is None:
        return gateway.bind(settings.gateway, models, scorers, sleepers)  # type: ignore[no-any-return]
    retriever = _retriever(settings.index_replicas, grace, settings.surge_percent).bind(index)
    return gateway.bind(settings.gateway, models, scorers, sleepers, index, retriever)  # type: ignore[no-any-return]


def _retriever(replicas: int, grace: float, surge_percent: int) -> Any:  # as `_scorer`
    return serve.deployment(
        RetrieverDeployment,
        name="retriever",
        num_replicas=replicas,
        max_surge_percent=surge_percent,
        max_ongoing_requests=_MANY_REQUESTS,
        ray_actor_options={"num_cpus": RETRIEVER_CPUS},
        graceful_shutdown_timeout_s=grace,
        max_constructor_retry_count=_STARTS,
    )


def _scorer(
    model: ModelSettings, grace: float, surge_percent: int
) -> Any:  # a serve.Deployment; its decorator is typed for its other uses
    where = place(model, gpus=this_machine().gpus)
    low, high = model.replicas
    scaling: Mapping[str, Any] = {"num_replicas": low}
    if high > low:
        policy = AutoscalingPolicy(  # type: ignore[no-untyped-call]
            policy_function=f"{QueuedWorkPolicy.__module__}:{QueuedWorkPolicy.__name__}",
            policy_kwargs={"target_seconds": model.scale_seconds},
        )
        scaling = {
            "autoscaling_config": AutoscalingConfig(
                min_replicas=low,
                max_replicas=high,
                upscale_delay_s=_UPSCALE_SECONDS,
                downscale_delay_s=_DOWNSCALE_SECONDS,
                look_back_period_s=_LOOK_BACK_SECONDS,
                policy=policy,
            )
        }
    return serve.deployment(
        ScorerDeployment,
        name=deployment_name(model.public_name),
        max_surge_percent=surge_percent,
        max_ongoing_requests=_MANY_REQUESTS,
        ray_actor_options={"num_cpus": where.cpus, "num_gpus": where.gpus},
        graceful_shutdown_timeout_s=grace,
        max_constructor_retry_count=_STARTS,
        **scaling,
    )
