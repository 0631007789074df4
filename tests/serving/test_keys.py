"""API keys: which are accepted, and what happens when their file changes."""

import hashlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankmill.errors import UsageError
from rankmill.serving.keys import KEYS_VARIABLE, Keys, refuse_keyless, refuse_open
from rankmill.settings.gateway import GatewaySettings

BOTH = {KEYS_VARIABLE: "first-key, second-key"}


def bearer(key: str) -> list[tuple[bytes, bytes]]:
    return [(b"authorization", b"Bearer " + key.encode())]


@pytest.mark.parametrize("key", ["first-key", "second-key"])
@pytest.mark.parametrize(
    ("name", "prefix"),
    [
        ("authorization", "Bearer "),
        ("authorization", "bearer  "),
        ("authorization", ""),  # clients of TEI send what they were given
        ("x-api-key", ""),
        ("api-key", ""),
    ],
)
def test_every_key_is_accepted_in_every_header_that_clients_use(name: str, prefix: str, key: str) -> None:
    assert Keys(None, BOTH).accept([(b"accept", b"*/*"), (name.encode(), (prefix + key).encode())])


@pytest.mark.parametrize(
    "headers",
    [
        [],
        bearer(""),
        bearer("first-key "[:-2]),
        bearer("first-key, second-key"),
        [(b"authorization", b"Basic first-key")],
        [(b"authorization", b"Bearer \xff\xfe\xc3")],
        [(b"cookie", b"first-key")],
        bearer("sha256:" + hashlib.sha256(b"first-key").hexdigest()),
        bearer(hashlib.sha256(b"first-key").hexdigest()),
    ],
)
def test_everything_else_is_not(headers: list[tuple[bytes, bytes]]) -> None:
    assert not Keys(None, BOTH).accept(headers)


@given(st.binary(max_size=100))
def test_no_header_breaks_it(value: bytes) -> None:
    assert not Keys(None, BOTH).accept([(b"authorization", value)])


def test_without_any_key_everybody_is_let_in_on_this_machine_only() -> None:
    nobody = Keys(None, {})
    assert nobody.accept([])
    for host in ("127.0.0.1", "::1", "localhost", "127.8.8.8"):
        refuse_open(host, nobody)
    for host in ("0.0.0.0", "::", "10.0.0.1", "example.com", ""):  # noqa: S104
        with pytest.raises(UsageError, match="keys-file"):
            refuse_open(host, nobody)
        refuse_open(host, Keys(None, BOTH))


def test_a_gateway_that_must_have_keys_does_not_start_without() -> None:
    strict = GatewaySettings(require_key=True)
    refuse_keyless(strict, Keys(None, BOTH))
    refuse_keyless(GatewaySettings(), Keys(None, {}))
    with pytest.raises(UsageError, match=KEYS_VARIABLE):
        refuse_keyless(strict, Keys(None, {}))


def test_a_file_is_read_again_when_it_changes(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text("# ours\nold-key\n\n")
    keys = Keys(str(file), BOTH)
    assert keys.accept(bearer("old-key"))
    assert keys.accept(bearer("first-key"))
    assert not keys.accept(bearer("# ours"))

    replacement = tmp_path / "next"
    replacement.write_text(f"sha256:{hashlib.sha256(b'new-key').hexdigest()}\n")
    replacement.replace(file)
    assert keys.accept(bearer("new-key"))
    assert not keys.accept(bearer("old-key"))

    file.unlink()
    assert keys.accept(bearer("new-key"))
    file.write_text("sha256:zz\n")
    assert keys.accept(bearer("new-key"))
    file.write_bytes(b"\xff\xfe\xfd\xfc\n")
    assert keys.accept(bearer("new-key"))


def test_a_mark_of_its_encoding_and_blanks_before_a_comment_are_no_part_of_a_key(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_bytes(b"\xef\xbb\xbffirst-key\n  # old-key\n\t second-key\n")
    keys = Keys(str(file), {})
    assert keys.accept(bearer("first-key"))
    assert keys.accept(bearer("second-key"))
    assert not keys.accept(bearer("# old-key"))


def test_a_file_that_was_emptied_lets_nobody_in(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text("old-key\n")
    keys = Keys(str(file), {})
    file.write_text("")
    assert not keys.accept(bearer("old-key"))
    assert not keys.accept([])
    assert not keys.accept(bearer(""))
    assert keys.required


@pytest.mark.parametrize("content", [None, b"sha256:12\n", b"\xff\n"])
def test_refuses_to_start_with_a_file_that_cannot_be_read(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "keys"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(UsageError, match="keys"):
        Keys(str(file), {})


def test_nothing_that_is_kept_holds_a_key(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text("file-key\n")
    kept = repr(vars(Keys(str(file), BOTH)))
    assert "file-key" not in kept
    assert "first-key" not in kept
