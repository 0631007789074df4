"""What may stand in the URI of an input or an output."""

import re
from urllib.parse import parse_qsl

from rankmill.errors import UsageError

_URI = re.compile(r"^([a-z][a-z0-9+.-]*)://([^/?#]*)([^?#]*)(?:\?(.*))?", re.IGNORECASE | re.DOTALL)
_ONE_SLASH = re.compile(r"^([a-z][a-z0-9+.-]*):/(?!/)", re.IGNORECASE)
_STORES = {"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss"}
_SECRET = re.compile(r"key|secret|token|password|credential|signature|\bsig\b", re.IGNORECASE)


def refuse_unusable(uri: str, name: str | None = None) -> None:
    """Refuse what names no place, or carries credentials.

    Args:
        uri: local path or URI.
        name: what errors call it, if not by itself.

    Raises:
        UsageError: saying what to write instead.
    """
    refuse_secrets(uri)
    name = name or uri
    if not uri.strip():
        raise UsageError(f"{name or 'A path'} is empty. Give a folder or a URI; the current folder is called `.`.")
    slip = _ONE_SLASH.match(uri)
    if slip is not None:
        raise UsageError(
            f"{name} would be a local folder called {slip[1]}:, for a URI has two slashes. Write {slip[1]}://… for a "
            f"store, or ./{uri} for the folder."
        )
    match = _URI.match(uri)
    if match is not None and match[1].lower() in _STORES and not match[2]:
        raise UsageError(f"{name} names no bucket; write {match[1]}://BUCKET/FOLDER.")


def split_uri(uri: str) -> tuple[str, str]:
    """Scheme in lower case, empty for a local path, and all that follows it."""
    scheme, found, path = uri.partition("://")
    return (scheme.lower(), path) if found and _URI.match(uri) else ("", uri)


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
