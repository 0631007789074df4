"""What may stand in the URI of an input or an output."""

import re
from urllib.parse import parse_qsl

from rankmill.errors import UsageError

_URI = re.compile(r"^([a-z][a-z0-9+.-]*)://([^/?#]*)([^?#]*)(?:\?(.*))?", re.IGNORECASE | re.DOTALL)
_SECRET = re.compile(r"key|secret|token|password|credential|signature|\bsig\b", re.IGNORECASE)


def refuse_secrets(uri: str) -> None:
    """Refuse a URI that carries credentials: it would end up in manifests, logs and dashboards.

    Raises:
        UsageError: saying where they belong; without repeating them.
    """
    match = _URI.match(uri)
    if match is None:
        return  # a local path, where `@` and `?` are characters like others
    scheme, authority, path, query = match.groups()
    names = sorted({name for name, _ in parse_qsl(query or "", keep_blank_values=True) if _SECRET.search(name)})
    user, at, host = authority.rpartition("@")
    if scheme.lower().startswith("abfs") and ":" not in user:
        at = ""  # abfs://CONTAINER@ACCOUNT/... names a place, not a person
    if not at and not names:
        return
    what = f"a query with {', '.join(names)}" if names else "a user or a password"
    raise UsageError(
        f"{scheme}://{host}{path} was given with {what}. A URI ends up in manifests and logs: give keys by the "
        "environment (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY), by --storage.profile or by a role."
    )
