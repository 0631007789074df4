"""The page at `/`: four files as they are, and the headers that keep anything else out of it.

It is constant, so that it needs no key; what it asks the endpoint for does.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
)
"""Nothing inline, nothing from elsewhere, in no frame; and a text that is taken for HTML is an error."""

_FILES = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
    "/page.svg": ("page.svg", "image/svg+xml"),
}

PATHS = tuple(_FILES)
"""Where the files are sent."""


@dataclass(frozen=True, slots=True)
class PageFile:
    """One file, ready to be sent."""

    body: bytes
    content_type: str
    headers: Mapping[str, str]
    """`etag` among them; names in lower case."""


def load() -> dict[str, PageFile]:
    """Every file, by the path it is sent at."""
    return {path: _load(name, content_type) for path, (name, content_type) in _FILES.items()}


def _load(name: str, content_type: str) -> PageFile:
    body = files(__package__).joinpath(name).read_bytes()
    headers = {
        "content-security-policy": POLICY,
        "cross-origin-opener-policy": "same-origin",
        "cross-origin-resource-policy": "same-origin",
        "referrer-policy": "no-referrer",
        "cache-control": "no-cache",  # keep it, and ask whether it changed
        "etag": f'"{hashlib.sha256(body).hexdigest()[:32]}"',
    }
    return PageFile(body, content_type, headers)
