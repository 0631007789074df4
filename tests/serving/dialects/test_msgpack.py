"""MessagePack bodies and the headers that ask for them."""

import math

import msgpack as reference
import pytest

from rankmill.serving.dialects import msgpack
from rankmill.serving.request_error import Kind, RequestError


def test_the_bytes_of_the_sdk() -> None:
    body = b"\x82\xa5query\x81\xa4text\xa1q\xa5items\x92\x82\xa4text\xa1a\xa2id\xa10\x81\xa4text\xa1b"

    assert msgpack.loads(body) == {"query": {"text": "q"}, "items": [{"text": "a", "id": "0"}, {"text": "b"}]}


def test_an_answer_is_a_plain_map() -> None:
    answer = {"model": "m", "query_id": None, "scores": [{"item_id": "0", "score": 0.5, "rank": 0}]}

    assert reference.unpackb(msgpack.dumps(answer)) == answer


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xc1",
        b"\x82\xa5query",
        b"\xa1\xff",
        b"\x81\x01\x02",
        reference.packb({"a": 1}) + b"\x00",
        b"\x82\xa1a\x01\xa1a\x02",
        reference.packb(reference.ExtType(4, b"x")),
        reference.packb(reference.Timestamp(1)),
        reference.packb({"a": math.nan}),
        reference.packb([math.inf]),
        reference.packb({"a": b"bytes"}),
        b"\x91" * 5000 + b"\xc0",
        b"{}",
    ],
)
def test_what_json_does_not_have_is_refused(body: bytes) -> None:
    with pytest.raises(RequestError) as caught:
        msgpack.loads(body)
    assert caught.value.kind is Kind.MALFORMED


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        (None, True),
        ("", True),
        ("*/*", True),
        ("application/msgpack", True),
        ("application/json", False),
        ("application/json;q=0.9, text/plain", False),
        ("application/json, application/msgpack", True),
    ],
)
def test_answers_are_msgpack_unless_accept_says_json(accept: str | None, expected: bool) -> None:  # noqa: FBT001
    assert msgpack.wants_msgpack(accept) is expected


@pytest.mark.parametrize(
    ("content_type", "expected"),
    [
        ("application/msgpack", True),
        ("Application/X-MsgPack; charset=binary", True),
        ("application/json", False),
        (None, False),
    ],
)
def test_content_types(content_type: str | None, expected: bool) -> None:  # noqa: FBT001
    assert msgpack.is_msgpack(content_type) is expected
