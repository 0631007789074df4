"""Whatever is sent: a request, or a `RequestError` that repeats nothing of it; then an answer, as OpenAPI says."""

import contextlib
import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from rankmill.serving.dialects import msgpack
from rankmill.serving.dialects.dialect import Dialect
from rankmill.serving.dialects.routes import ROUTES, Route, choose
from rankmill.serving.request import RerankRequest
from rankmill.serving.request_error import Kind, RequestError
from tests.serving.dialects.answers import result_of
from tests.serving.dialects.recorded import RECORDED

SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
)
FIELDS = sorted(
    {name for route in ROUTES for dialect in route.dialects for name in dialect.request_model.model_fields}
    | {"text", "content", "type", "id"}
)
TEXTS = st.text(max_size=6)
PLAUSIBLE = st.one_of(
    TEXTS,
    st.lists(TEXTS, min_size=1, max_size=3),
    st.lists(st.fixed_dictionaries({"text": TEXTS}), min_size=1, max_size=3),
    st.fixed_dictionaries({"text": TEXTS}),
    st.integers(min_value=-1, max_value=5),
    st.booleans(),
    st.none(),
)
BODIES = VALUES | st.dictionaries(st.sampled_from(FIELDS), VALUES | PLAUSIBLE, max_size=12)


def attempt(dialect: Dialect, body: Any) -> RerankRequest | RequestError:
    """What is made of a body; nothing but a `RequestError` is caught."""
    try:
        return dialect.parse(body, {"model": "m"})
    except RequestError as error:
        return error


@given(route=st.sampled_from(ROUTES), body=BODIES)
@settings(max_examples=400, deadline=None)
def test_any_json_value_is_parsed_or_refused(route: Route, body: Any) -> None:
    dialect = choose(route.path, body)
    request = attempt(dialect, body)
    if isinstance(request, RequestError):
        assert request.kind in {Kind.INVALID, Kind.EMPTY, Kind.UNKNOWN_FIELD}
        assert len(str(request)) < 300
        assert dialect.render_error(request)[0] in {400, 422}
        return
    assert len(request.documents) == len(request.pairs[0]) >= 1
    answer = json.dumps(dialect.render(body, request, result_of(request, [0.5] * len(request.documents))))
    dialect.response_model.model_validate_json(answer, strict=True)


BASES = [(recorded.path, recorded.body) for recorded in RECORDED]


@given(base=st.sampled_from(BASES), name=st.sampled_from(FIELDS), value=VALUES)
@settings(max_examples=300, deadline=None)
def test_a_good_body_with_one_field_changed_is_parsed_or_refused(base: Any, name: str, value: Any) -> None:
    path, body = base
    changed = body | {name: value}
    dialect = choose(path, changed)
    request = attempt(dialect, changed)
    if isinstance(request, RerankRequest):
        dialect.render(changed, request, result_of(request, [0.5] * len(request.documents)))


@given(
    secret=st.text(alphabet="ξψω", min_size=6, max_size=8),
    base=st.sampled_from(BASES),
    name=st.sampled_from(FIELDS),
    shape=st.sampled_from(["text", "list", "key", "deep"]),
)
@settings(max_examples=300, deadline=None)
def test_no_error_repeats_what_was_sent(secret: str, base: Any, name: str, shape: str) -> None:
    path, body = base
    values: dict[str, Any] = {
        "text": secret,
        "list": [secret, 3],
        "key": {secret: secret},
        "deep": [{"text": {secret: secret}}],
    }
    changed = {key: value for key, value in body.items() if key not in {"query", "queries"}}
    changed |= {name: values[shape], secret: secret}
    dialect = choose(path, changed)
    error = attempt(dialect, changed)
    if isinstance(error, RequestError):
        assert secret not in f"{error!r} {error.args} {error.field} {dialect.render_error(error)}"


@given(body=st.binary(max_size=60))
@settings(max_examples=300, deadline=None)
def test_any_bytes_are_read_as_msgpack_or_refused(body: bytes) -> None:
    with contextlib.suppress(RequestError):
        json.dumps(msgpack.loads(body), allow_nan=False)
