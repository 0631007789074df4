"""The endpoint's OpenAPI description, made from what the dialects check bodies with and what they answer."""

import re
from collections.abc import Sequence
from http import HTTPStatus
from itertools import product
from typing import Any, Literal

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from rankmill import __version__
from rankmill.serving.dialects import catalogue, msgpack
from rankmill.serving.dialects.dialect import Dialect
from rankmill.serving.dialects.info import Info, Probe
from rankmill.serving.dialects.routes import Route
from rankmill.serving.dialects.standard import STANDARD
from rankmill.serving.openapi_parts import (
    REQUEST_HEADERS,
    RESPONSE_HEADERS,
    SECURITY_SCHEMES,
    answer,
    any_of,
    identifier,
    json_content,
    path_parameters,
    refusal,
    shape,
)
from rankmill.serving.request_error import Kind, RequestError
from rankmill.serving.two_stages import TWO_STAGES, TwoStages

_REFERENCE = "#/components/schemas/{model}"
_JSON = "application/json"
_READY = "Whether requests can be reranked now"
_PAGES: dict[str, tuple[str, type[BaseModel] | str, tuple[int, ...]]] = {
    "/": ("A page to try it in a browser", "text/html", (200, 304)),
    "/page.css": ("Part of the page", "text/css", (200, 304)),
    "/page.js": ("Part of the page", "text/javascript", (200, 304)),
    "/page.svg": ("Part of the page", "image/svg+xml", (200, 304)),
    "/healthz": ("Whether the process answers", Probe, (200,)),
    "/readyz": (_READY, Probe, (200, 503)),
    "/health": (f"{_READY}, where clients of text-embeddings-inference look for it", Probe, (200, 503)),
    "/.well-known/ready": (f"{_READY}, where Weaviate looks for it", Probe, (200, 503)),
    "/info": ("The default model, for clients of text-embeddings-inference", Info, (200,)),
    "/meta": ("The same, for Weaviate", Info, (200,)),
    "/v1/models": ("Names that `model` may have", catalogue.Models, (200, 401)),
    "/v1/models/{model}": ("What a name stands for", catalogue.Model, (200, 401, 404)),
    "/v1/cluster/auth": ("For clients of Xinference: no token has to be fetched", catalogue.ClusterAuth, (200,)),
    "/metrics": ("Metrics for Prometheus", "text/plain", (200, 401)),
    "/openapi.json": ("This description", _JSON, (200, 401)),
}
"""Summary, the body or its type, and statuses; those without 401 need no key."""


def describe(routes: Sequence[Route], *, searching: bool) -> dict[str, Any]:
    """The description, as a JSON value.

    Args:
        routes: where dialects are spoken.
        searching: whether there is an index; without one its paths answer 404, and are left out.
    """
    dialects = {dialect.name: dialect for route in routes for dialect in route.dialects}.values()
    references, components = _schemas(list(dialects))
    paths: dict[str, Any] = {}
    for route in routes:
        path = re.sub(r"\{(\w+):\w+\}", r"{\1}", route.path)
        paths.setdefault(path, {})[route.method.lower()] = _operation(route, path, references)
    for path, stages in TWO_STAGES.items() if searching else ():
        paths[path] = {"post": _search(path, stages, references)}
    for path, (summary, body, statuses) in _PAGES.items():
        paths[path] = {"get": _page(path, summary, body, statuses, references)}
    return {
        "openapi": "3.1.0",
        "info": {"title": "rankmill", "version": __version__, "description": "Reranks documents for a query."},
        "paths": paths,
        "components": {"schemas": components, "headers": RESPONSE_HEADERS, "securitySchemes": SECURITY_SCHEMES},
        "security": [{scheme: []} for scheme in SECURITY_SCHEMES],
    }


_TOLD = ("X-Model", "X-Model-Revision", "X-Cached-Pairs", "Server-Timing")
"""Headers of a result."""

References = dict[tuple[Any, str], dict[str, Any]]
"""Schemas by pydantic model and mode."""


def _schemas(dialects: list[Dialect]) -> tuple[References, dict[str, Any]]:
    asked: list[tuple[type[BaseModel], Literal["validation", "serialization"]]] = []
    spoken: list[Dialect | TwoStages] = [*dialects, *TWO_STAGES.values()]
    for words in spoken:
        asked += [(words.request_model, "validation"), (words.response_model, "serialization")]
    asked += [(body, "serialization") for _, body, _ in _PAGES.values() if not isinstance(body, str)]
    found, definitions = models_json_schema(list(dict.fromkeys(asked)), ref_template=_REFERENCE)
    return {(model, mode): schema for (model, mode), schema in found.items()}, definitions.get("$defs", {})


def _operation(route: Route, path: str, references: References) -> dict[str, Any]:
    requests = [references[dialect.request_model, "validation"] for dialect in route.dialects]
    answers = [references[dialect.response_model, "serialization"] for dialect in route.dialects]
    operation: dict[str, Any] = {
        "summary": "Rerank documents, in the words of " + ", ".join(dialect.name for dialect in route.dialects),
        "operationId": identifier(route.method, path),
        "requestBody": {"required": True, "content": _content(route, requests)},
        "responses": {
            "200": answer(_content(route, answers), *_TOLD, description="Scores"),
            **_errors(route.dialects),
        },
    }
    rules = [*_choice(route), *_msgpack(route)]
    described = {"description": "\n\n".join(rules)} if rules else {}
    return operation | described | {"parameters": [*REQUEST_HEADERS, *path_parameters(path)]}


def _choice(route: Route) -> list[str]:
    """How one of several dialects is chosen."""
    if len(route.dialects) == 1:
        return []
    rules = "\n".join(f"- {sign.text}: {sign.dialect.name}" for sign in route.signs)
    return [
        "The body decides in whose words it is read and answered, by the first of these that it has:",
        rules,
        f"Any other body is read in those of {route.dialects[-1].name}.",
    ]


def _msgpack(route: Route) -> list[str]:
    if not any(dialect.msgpack for dialect in route.dialects):
        return []
    return ["Scores come in MessagePack, unless `Accept` names JSON and not MessagePack too; errors come in JSON."]


def _search(path: str, stages: TwoStages, references: References) -> dict[str, Any]:
    found = json_content(references[stages.response_model, "serialization"])
    return {
        "summary": stages.summary,
        "operationId": identifier("post", path),
        "requestBody": {"required": True, "content": json_content(references[stages.request_model, "validation"])},
        "responses": {"200": answer(found, *_TOLD, description="Documents"), **_errors([STANDARD])},
        "parameters": REQUEST_HEADERS,
    }


_KINDS = tuple(kind for kind in Kind if kind is not Kind.UNKNOWN_ROUTE)
"""Errors of paths that there are."""


def _errors(dialects: Sequence[Dialect], kinds: Sequence[Kind] = _KINDS) -> dict[str, Any]:
    """What each kind of error looks like in each dialect, by status."""
    shapes: dict[int, list[dict[str, Any]]] = {}
    for dialect, kind, field in product(dialects, kinds, (None, "documents")):
        status, body = dialect.render_error(RequestError(kind, "Why.", field))
        shapes.setdefault(status, []).append(shape(body))
    return {str(status): refusal(status, shapes[status]) for status in sorted(shapes)}


def _page(
    path: str, summary: str, body: type[BaseModel] | str, statuses: tuple[int, ...], references: References
) -> dict[str, Any]:
    content = {body: {}} if isinstance(body, str) else json_content(references[body, "serialization"])
    errors = _errors([STANDARD], [kind for kind in (Kind.UNAUTHORIZED, Kind.UNKNOWN_MODEL) if kind.status in statuses])
    page: dict[str, Any] = {
        "summary": summary,
        "operationId": identifier("get", path),
        "parameters": path_parameters(path),
        "responses": {str(status): answer(content, description=HTTPStatus(status).phrase) for status in statuses}
        | errors,
    }
    return page if 401 in statuses else page | {"security": []}


def _content(route: Route, schemas: list[dict[str, Any]]) -> dict[str, Any]:
    schema = any_of(schemas)
    in_msgpack = any(dialect.msgpack for dialect in route.dialects)
    return json_content(schema) | ({msgpack.CONTENT_TYPE: {"schema": schema}} if in_msgpack else {})
