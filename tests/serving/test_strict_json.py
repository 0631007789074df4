"""Which bodies are read, and how."""

import json

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from rankmill.serving.request_error import Kind, RequestError
from rankmill.serving.strict_json import MAX_DEPTH, parse

CANARY = "canary"

REFUSED = {
    "nothing": b"",
    "blank": b"  ",
    "no JSON": b"query=canary",
    "NaN": b'{"canary": NaN}',
    "infinity": b"[-Infinity]",
    "a number that becomes infinity": b"[1e999]",
    "a whole number of 65 bits": b"[9223372036854775808]",
    "a whole number of 5,000 digits": b"[" + b"7" * 5000 + b"]",
    "a key twice": b'{"a": "canary", "a": 1}',
    "a key twice, spelt differently": b'[{"a": 1, "\\u0061": 1}]',
    "half a surrogate pair": b'["canary \\ud800"]',
    "the other half": b'["\\uDC00 canary"]',
    "half a surrogate pair as a key": b'{"\\ud83d": 1}',
    "a surrogate as bytes": b'["\xed\xa0\x80"]',
    "bytes that are not UTF-8": b'["canary\xff"]',
    "UTF-16": '{"canary": 1}'.encode("utf-16"),
    "too deep": b"[" * (MAX_DEPTH + 1) + b"]" * (MAX_DEPTH + 1),
    "too deep for the parser": b"[" * 100_000,
    "too deep, with objects": b'{"a":' * 5000 + b"1" + b"}" * 5000,
    "something after it": b"{} canary",
    "a raw NUL": b'["\x00"]',
    "single quotes": b"{'canary': 1}",
}


@pytest.mark.parametrize("body", REFUSED.values(), ids=REFUSED)
def test_refuses(body: bytes) -> None:
    with pytest.raises(RequestError) as caught:
        parse(body)
    assert caught.value.kind is Kind.MALFORMED
    assert CANARY not in str(caught.value)
    assert len(str(caught.value)) < 200


ACCEPTED = {
    "a byte order mark": (b"\xef\xbb\xbf[1]", [1]),
    "an escaped NUL": (b'["a\\u0000b"]', ["a\0b"]),
    "a surrogate pair": (b'["\\ud83d\\ude00"]', ["\U0001f600"]),
    "text that looks like an escape": (b'["\\\\ud800"]', ["\\ud800"]),
    "64 bits": (b"[-9223372036854775808, 9223372036854775807]", [-(2**63), 2**63 - 1]),
    "the same key in two objects": (b'[{"a": 1}, {"a": 2}]', [{"a": 1}, {"a": 2}]),
    "as deep as allowed": (b"[" * MAX_DEPTH + b"]" * MAX_DEPTH, json.loads("[" * MAX_DEPTH + "]" * MAX_DEPTH)),
    "brackets in a text": (b'["' + b"[" * 1000 + b'"]', ["[" * 1000]),
}


@pytest.mark.parametrize(("body", "value"), ACCEPTED.values(), ids=ACCEPTED)
def test_accepts(body: bytes, value: object) -> None:
    assert parse(body) == value


JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    # every character but half of a surrogate pair
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner),
    max_leaves=20,
)


@given(JSON_VALUES, st.booleans())
def test_reads_what_was_written(value: object, ensure_ascii: bool) -> None:  # noqa: FBT001
    assert parse(json.dumps(value, ensure_ascii=ensure_ascii).encode()) == value


@settings(max_examples=500)
@given(st.binary() | st.text(alphabet='[]{}",:\\u0dD8eE+-.19 NaInfity').map(str.encode))
@example(b"\xef\xbb\xbf")
@example(b'"\\u')
def test_any_bytes_give_a_value_that_can_be_sent_or_a_refusal(body: bytes) -> None:
    try:
        value = parse(body)
    except RequestError:
        return
    json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
