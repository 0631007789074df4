"""API keys: where they come from, and whether a request holds one."""

import hashlib
import hmac
import ipaddress
import logging
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from rankmill.errors import UsageError
from rankmill.settings.gateway import GatewaySettings

KEYS_VARIABLE = "RANKMILL_API_KEYS"
"""Environment variable with keys, separated by commas."""

log = logging.getLogger(__name__)

_DIGEST_PREFIX = "sha256:"
_PLAIN_HEADERS = (b"x-api-key", b"api-key")


class Keys:
    """Every key that is accepted now, as digests: the keys themselves are forgotten.

    Args:
        file: one key a line, or `sha256:` and the hexadecimal digest of one; empty lines and `#` lines are left out. It
            is read again when it changes; emptied, it holds no key; while it is missing, the last ones hold.
        environment: `KEYS_VARIABLE` is read, once.

    Raises:
        UsageError: the file cannot be read, or a line is malformed.
    """

    def __init__(self, file: str | None, environment: Mapping[str, str] = os.environ) -> None:
        self._fixed = _digests(environment.get(KEYS_VARIABLE, "").split(","), KEYS_VARIABLE)
        self._file = None if file is None else Path(file)
        self._seen: tuple[int, int, int] | None = None
        self._from_file: tuple[bytes, ...] = ()
        if self._file is not None:
            try:
                self._read(self._file)
            except OSError as error:
                raise UsageError(f"--keys-file {file}: {error.strerror or error}.") from error

    @property
    def required(self) -> bool:
        """Whether requests need a key: a file that was emptied later accepts none, rather than anybody."""
        return self._file is not None or bool(self._fixed)

    def accept(self, headers: Iterable[tuple[bytes, bytes]]) -> bool:
        """Whether one of the headers in which clients send keys holds one of ours; in constant time for each.

        `Authorization: Bearer KEY`, `Authorization: KEY` (clients of TEI send it as it is), `X-Api-Key`, `Api-Key`.

        Args:
            headers: names in lower case, any bytes as values.
        """
        if not self.required:
            return True
        self._reload()
        return sum(self._known(candidate) for candidate in _candidates(headers)) > 0  # looks at all, unlike any()

    def _known(self, candidate: bytes) -> bool:
        given = hashlib.sha256(candidate).digest()
        return sum(hmac.compare_digest(given, digest) for digest in (*self._fixed, *self._from_file)) > 0

    def _reload(self) -> None:
        if self._file is None:
            return
        try:
            self._read(self._file)
        except (OSError, UsageError) as error:
            log.warning("the keys file was not read again, the last keys hold: %s", type(error).__name__)

    def _read(self, file: Path) -> None:
        status = file.stat()
        now = (status.st_mtime_ns, status.st_size, status.st_ino)
        if now == self._seen:
            return
        try:
            lines = file.read_text(encoding="utf-8-sig").splitlines()  # editors put a mark first
        except UnicodeDecodeError as error:
            raise UsageError(f"The keys file {file} is not text in UTF-8.") from error
        self._seen = now  # a file that is malformed is reported once, not with every request
        self._from_file = _digests((line for line in lines if not line.lstrip().startswith("#")), str(file))
        log.info("%d API keys read", len(self._from_file))


def refuse_keyless(settings: GatewaySettings, keys: Keys) -> None:
    """Refuse to start without keys where the settings ask for them: a replica does not know its server's address.

    Raises:
        UsageError: there are none.
    """
    if settings.require_key and not keys.required:
        raise UsageError(
            f"API keys are required here and there are none: give a keys file, or set {KEYS_VARIABLE} in the "
            "environment of the gateway's process."
        )


def refuse_open(host: str, keys: Keys) -> None:
    """Refuse to listen where others can connect, without any key.

    Raises:
        UsageError: `host` is not of this machine alone, and no key is configured.
    """
    if keys.required or _is_loopback(host):
        return
    raise UsageError(
        f"--host {host} can be reached from other machines, and there are no API keys: give --keys-file or the "
        f"environment variable {KEYS_VARIABLE}, or listen on 127.0.0.1."
    )


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _candidates(headers: Iterable[tuple[bytes, bytes]]) -> list[bytes]:
    found = []
    for name, value in headers:
        if name == b"authorization":
            scheme, _, rest = value.strip().partition(b" ")
            found.append(rest.strip() if scheme.lower() == b"bearer" else value.strip())
        elif name in _PLAIN_HEADERS:
            found.append(value.strip())
    return found


def _digests(entries: Iterable[str], source: str) -> tuple[bytes, ...]:
    found = []
    for number, entry in enumerate(entries, start=1):
        key = entry.strip()
        if key.startswith(_DIGEST_PREFIX):
            try:
                digest = bytes.fromhex(key.removeprefix(_DIGEST_PREFIX))
            except ValueError:
                digest = b""
            if len(digest) != hashlib.sha256().digest_size:
                raise UsageError(f"{source}, key {number}: after {_DIGEST_PREFIX} come 64 hexadecimal digits.")
            found.append(digest)
        elif key:
            found.append(hashlib.sha256(key.encode()).digest())
    return tuple(found)
