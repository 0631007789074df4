"""Waits until what `rankmill serve` deployed is up, and says what is not."""

import logging
import time
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from rankmill.errors import ModelError, NoProgressError, RankmillError
from rankmill.settings.serve import deployment_name

if TYPE_CHECKING:
    from ray.serve.schema import ApplicationStatusOverview, DeploymentStatusOverview

_log = logging.getLogger("rankmill")

_LOOK_SECONDS = 0.5
_REPORT_SECONDS = 10.0


def wait_until_up(application: str, models: Iterable[str], seconds: float) -> None:
    """Wait for every deployment of an application; logs what is still missing now and then.

    Args:
        application: its name.
        models: what its models are called.
        seconds: for all of it.

    Raises:
        ModelError: a model could not be started.
        NoProgressError: not everything is up in time.
        RankmillError: the application failed in another way.
    """
    from ray import serve  # noqa: PLC0415 - reads its settings when it is imported: after `connect`

    names = {deployment_name(model): model for model in models}
    started = reported = time.monotonic()
    while (found := serve.status().applications.get(application)) is None or found.status != "RUNNING":
        if found is not None and found.status == "DEPLOY_FAILED":
            raise _failure(found, names)
        now = time.monotonic()
        waiting = _not_up(found, names)
        if now - started > seconds:
            raise NoProgressError(_late(waiting, seconds))
        if now - reported > _REPORT_SECONDS:
            reported = now
            _log.info("after %.0f s not up yet: %s", now - started, ", ".join(waiting) or "the application")
        time.sleep(_LOOK_SECONDS)


def _failure(found: "ApplicationStatusOverview", names: Mapping[str, str]) -> RankmillError:
    """Names the models that could not be started, with the last line of what Ray has of each: its error."""
    failures = [
        f"The model {names[name]!r} could not be started: {about.message.strip().splitlines()[-1].strip()}"
        for name, about in found.deployments.items()
        if name in names and about.status == "DEPLOY_FAILED" and about.message.strip()
    ]
    return (
        ModelError(" ".join(failures)) if failures else RankmillError(f"The application did not start: {found.message}")
    )


def _not_up(found: "ApplicationStatusOverview | None", names: Mapping[str, str]) -> "dict[str, str]":
    """What Ray says of whatever is not up, by what people call it; the models first."""
    deployments: Mapping[str, DeploymentStatusOverview] = found.deployments if found is not None else {}
    every = [*names, *(name for name in deployments if name not in names)]
    return {
        f"the model {names[name]!r}" if name in names else f"the {name}": " ".join(deployments[name].message.split())
        if name in deployments
        else ""
        for name in every
        if name not in deployments or deployments[name].status != "HEALTHY"
    }


def _late(waiting: Mapping[str, str], seconds: float) -> str:
    said = "".join(f" Of {name} Ray says: {message}" for name, message in waiting.items() if message)
    what = ", ".join(waiting) or "the application"
    return (
        f"Not up after {seconds:g} s: {what}.{said} Look at `ray status` for a machine that is missing, and at "
        "logs/worker-*.err of Ray's session (/tmp/ray/session_latest) for what a replica does. If loading takes that "
        "long, give a larger --start-timeout; if there is no room for a new version beside the old one, "
        "--surge-percent 0."
    )
