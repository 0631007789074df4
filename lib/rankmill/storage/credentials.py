"""Who signs for S3, and where it is: one chain for the driver, the workers, inputs and outputs.

The chain is botocore's (profile, environment, SSO, container and instance roles), the one s3fs uses for inputs, so both
sides of a job sign with the same identity, for the same region, at the same endpoint; `StorageSettings` names what
shall win. Nothing secret is ever put into a URI, a manifest or a Ray argument: every process resolves its own.
"""

import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any

import botocore.session
from botocore.credentials import Credentials, RefreshableCredentials
from botocore.exceptions import BotoCoreError

from rankmill.errors import StorageError
from rankmill.settings.storage import StorageSettings

_REFRESH = timedelta(minutes=10)  # how often short-lived keys are asked for again; roles last at least 15 minutes


def s3_options(storage: StorageSettings | None = None) -> dict[str, Any]:
    """Arguments of obstore's `S3Store`: region, endpoint (plain http only where it says so) and credentials.

    Raises:
        StorageError: there is no such profile, its settings cannot be used, or there are no credentials.
    """
    storage = storage or StorageSettings()
    try:
        region, endpoint = _place(
            tuple(sorted(item for item in os.environ.items() if item[0].startswith("AWS_"))), storage
        )
        credentials = s3_credentials(storage)
    except BotoCoreError as error:
        raise StorageError(f"S3 credentials or settings cannot be used: {error}") from error
    return {
        "region": region,
        "endpoint": endpoint,
        "client_options": {"allow_http": endpoint.startswith("http://")},
        "credential_provider": credentials,
    }


@lru_cache(maxsize=1)
def _place(environment: tuple[tuple[str, str], ...], storage: StorageSettings) -> tuple[str, str]:  # noqa: ARG001 - what the answer depends on
    """Region and endpoint; remembered, because a client takes a third of a second and every write task opens a store.

    Args:
        environment: the variables that botocore reads.
        storage: what wins over them.
    """
    session = botocore.session.Session(profile=storage.profile)
    region = storage.region or os.environ.get("AWS_REGION") or session.get_config_variable("region") or "us-east-1"
    if storage.endpoint is not None:
        return region, storage.endpoint
    client = session.create_client("s3", region_name=region)  # the public way to ask for a profile's endpoint
    endpoint: str = client.meta.endpoint_url
    client.close()
    return region, endpoint


def s3_credentials(storage: StorageSettings) -> Callable[[], Any]:
    """A credential provider for obstore, which would go and look elsewhere if it were given none.

    Raises:
        StorageError: botocore finds no credentials.
    """
    session = botocore.session.Session(profile=storage.profile)
    credentials: Credentials | None = session.get_credentials()
    if credentials is None:
        raise StorageError(
            "No S3 credentials were found: not in the environment (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY), not for "
            f"{'the profile ' + storage.profile if storage.profile else 'the default profile (--storage.profile)'}, "
            "and this machine has no role."
        )

    def provide() -> dict[str, Any]:
        frozen = credentials.get_frozen_credentials()
        renewable = isinstance(credentials, RefreshableCredentials)
        return {
            "access_key_id": frozen.access_key,
            "secret_access_key": frozen.secret_key,
            "token": frozen.token,
            "expires_at": datetime.now(UTC) + _REFRESH if renewable else None,
        }

    return provide
