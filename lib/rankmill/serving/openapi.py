"""The endpoint's OpenAPI description, made from what the dialects check bodies with and what they answer."""

import re
from collections.abc import Sequence
from http import HTTPStatus
from itertools import product
from typing import Any, Literal

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from rankmill import __version__
from rankmill.serving.dialects import msgpack
from rankmill.serving.dialects.dialect import Dialect
from rankmill.serving.dialects.routes import Route
from rankmill.serving.request_error import Kind, RequestError
from rankmill.serving.two_stages import TWO_STAGES, TwoStages

_REFERENCE = "#/components/schemas/{model}"
_PAGES = {
    "/": ("A page to try it in a browser", "text/html", (200, 304)),
    "/page.css": ("Part of the page", "text/css", (200, 304)),
    "/page.js": ("Part of the page", "text/javascript", (200, 304)),
    "/page.svg": ("Part of the page", "image/svg+xml", (200, 304)),
    "/healthz": ("Whether the process answers", "application/json", (200,)),
    "/readyz": ("Whether requests can be reranked now", "application/json", (200, 503)),
    "/health": ("The same, where clients of text-embeddings-inference look for it", "application/json", (200, 503)),
    "/info": ("The default model, for clients of text-embeddings-inference", "application/json", (200,)),
    "/v1/models": ("Names that `model` may have", "application/json", (200, 401)),
    "/v1/models/{model}": ("What a name stands for", "application/json", (200, 401, 404)),
    "/v1/cluster/auth": ("For clients of Xinference: no token has to be fetched", "application/json", (200,)),
    "/metrics": ("Metrics for Prometheus", "text/plain", (200, 401)),
    "/openapi.json": ("This description", "application/json", (200, 401)),
}


_TIMEOUT: dict[str, Any] = {
    "name": "X-Request-Timeout-Ms",
    "in": "header",
    "required": False,
    "description": "Milliseconds after which no result is wanted any more",
    "schema": {"type": "integer", "minimum": 1},
}
_TYPES: dict[type, str | list[str]] = {
    bool: "boolean",
    int: "integer",
    float: "number",
    str: "string",
    type(None): ["string", "null"],
}


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
        # errors as on the first route, in the words that are nobody else's
        paths[path] = {"post": _search(path, stages, references, routes[0].dialects[-1])}
    for path, (summary, content_type, statuses) in _PAGES.items():
        paths[path] = {"get": _page(path, summary, content_type, statuses)}
    return {
        "openapi": "3.1.0",
        "info": {"title": "rankmill", "version": __version__, "description": "Reranks documents for a query."},
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "header": {"type": "apiKey", "in": "header", "name": "X-Api-Key"},
            },
        },
        "security": [{"bearer": []}, {"header": []}],
    }


References = dict[tuple[Any, str], dict[str, Any]]
"""Schemas by pydantic model and mode."""


def _schemas(dialects: list[Dialect]) -> tuple[References, dict[str, Any]]:
    asked: list[tuple[type[BaseModel], Literal["validation", "serialization"]]] = []
    for dialect in dialects:
        asked += [(dialect.request_model, "validation"), (dialect.response_model, "serialization")]
    for stages in TWO_STAGES.values():
        asked += [(stages.request_model, "validation"), (stages.response_model, "serialization")]
    found, definitions = models_json_schema(list(dict.fromkeys(asked)), ref_template=_REFERENCE)
    return {(model, mode): schema for (model, mode), schema in found.items()}, definitions.get("$defs", {})


def _operation(route: Route, path: str, references: References) -> dict[str, Any]:
    requests = [references[dialect.request_model, "validation"] for dialect in route.dialects]
    answers = [references[dialect.response_model, "serialization"] for dialect in route.dialects]
    operation: dict[str, Any] = {
        "summary": "Rerank documents, in the words of " + ", ".join(dialect.name for dialect in route.dialects),
        "operationId": _identifier(route.method, path),
        "requestBody": {"required": True, "content": _content(route, requests)},
        "responses": {
            "200": {"description": "Scores", "content": _content(route, answers)},
            **_errors(route.dialects),
        },
    }
    return operation | {"parameters": [_TIMEOUT, *_path_parameters(path)]}


def _search(path: str, stages: TwoStages, references: References, errors: Dialect) -> dict[str, Any]:
    return {
        "summary": stages.summary,
        "operationId": _identifier("post", path),
        "requestBody": {"required": True, "content": _json(references[stages.request_model, "validation"])},
        "responses": {
            "200": {
                "description": "Documents",
                "content": _json(references[stages.response_model, "serialization"]),
            },
            **_errors([errors]),
        },
        "parameters": [_TIMEOUT],
    }


def _path_parameters(path: str) -> list[dict[str, Any]]:
    return [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in re.findall(r"\{(\w+)\}", path)
    ]


def _errors(dialects: Sequence[Dialect]) -> dict[str, Any]:
    """What each kind of error looks like in each dialect, by status."""
    shapes: dict[int, list[dict[str, Any]]] = {}
    kinds = [kind for kind in Kind if kind is not Kind.UNKNOWN_ROUTE]
    for dialect, kind, field in product(dialects, kinds, (None, "documents")):
        status, body = dialect.render_error(RequestError(kind, "Why.", field))
        shapes.setdefault(status, []).append(_shape(body))
    return {
        str(status): {"description": HTTPStatus(status).phrase, "content": _json(_any_of(shapes[status]))}
        for status in sorted(shapes)
    }


def _page(path: str, summary: str, content_type: str, statuses: tuple[int, ...]) -> dict[str, Any]:
    page: dict[str, Any] = {
        "summary": summary,
        "operationId": _identifier("get", path),
        "parameters": _path_parameters(path),
        "responses": {
            str(status): {
                "description": HTTPStatus(status).phrase,
                "content": {("application/json" if status == 401 else content_type): {}},
            }
            for status in statuses
        },
    }
    return page if 401 in statuses else page | {"security": []}


def _shape(value: Any) -> dict[str, Any]:
    """The schema of values like this one."""
    if isinstance(value, dict):
        properties = {name: _shape(member) for name, member in value.items()}
        return {"type": "object", "properties": properties, "required": sorted(properties)}
    if isinstance(value, list):
        return {"type": "array"} | ({"items": _any_of([_shape(item) for item in value])} if value else {})
    return {"type": _TYPES[type(value)]}


def _any_of(schemas: list[dict[str, Any]]) -> dict[str, Any]:
    distinct = [schema for i, schema in enumerate(schemas) if schema not in schemas[:i]]
    return distinct[0] if len(distinct) == 1 else {"anyOf": distinct}


def _content(route: Route, schemas: list[dict[str, Any]]) -> dict[str, Any]:
    schema = _any_of(schemas)
    in_msgpack = any(dialect.msgpack for dialect in route.dialects)
    return _json(schema) | ({msgpack.CONTENT_TYPE: {"schema": schema}} if in_msgpack else {})


def _json(schema: dict[str, Any]) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}


def _identifier(method: str, path: str) -> str:
    return "_".join([method.lower(), *re.findall(r"\w+", path)])
