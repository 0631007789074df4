"""Where S3 credentials and the endpoint come from: one chain for the driver, the workers, inputs and outputs.

The chain is botocore's (environment, profile, SSO, container and instance roles), the one s3fs uses for inputs, so both
sides of a job sign with the same identity. Nothing secret is ever put into a URI, a manifest or a Ray argument: every
process resolves its own.
"""

import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import botocore.session
from botocore.credentials import Credentials, RefreshableCredentials

_REFRESH = timedelta(minutes=10)  # how often short-lived keys are asked for again; roles last at least 15 minutes


def s3_over_plain_http() -> bool:
    """Whether the configured endpoint is plain http (a server on loopback, mostly); anything else must be https."""
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or ""
    return endpoint.startswith("http://")


def s3_credentials() -> Callable[[], Any] | None:
    """A credential provider for obstore, or None when botocore finds no credentials (anonymous or obstore's own)."""
    credentials: Credentials | None = botocore.session.get_session().get_credentials()
    if credentials is None:
        return None

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
