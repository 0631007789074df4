"""Parts of the OpenAPI description that many operations share, as JSON values."""

import re
from http import HTTPStatus
from typing import Any

from rankmill.serving.exchange import SANE_ID

_ID = {"type": "string", "pattern": f"^{SANE_ID.pattern}$"}

REQUEST_HEADERS: list[dict[str, Any]] = [
    {
        "name": "X-Request-Timeout-Ms",
        "in": "header",
        "required": False,
        "description": "Milliseconds after which no result is wanted any more",
        "schema": {"type": "integer", "minimum": 1},
    },
    {
        "name": "X-Request-Id",
        "in": "header",
        "required": False,
        "description": "For logs, and sent back; any other is replaced",
        "schema": _ID,
    },
]

RESPONSE_HEADERS: dict[str, dict[str, Any]] = {
    "X-Request-Id": {"description": "The client's own, or a new one", "schema": _ID},
    "X-Model": {"description": "Name of the model, also where an alias was given", "schema": {"type": "string"}},
    "X-Model-Revision": {"description": "Of the model's content", "schema": {"type": "string"}},
    "X-Cached-Pairs": {
        "description": "Pairs whose scores were known and not computed again",
        "schema": {"type": "integer", "minimum": 0},
    },
    "Server-Timing": {"description": "Milliseconds by phase", "schema": {"type": "string"}},
    "Retry-After": {"description": "Seconds after which to try again", "schema": {"type": "integer", "minimum": 1}},
    "WWW-Authenticate": {"description": "How to send a key", "schema": {"const": "Bearer"}},
    "Allow": {"description": "Methods that the path answers to", "schema": {"type": "string"}},
}
_OF_STATUS = {401: ("WWW-Authenticate",), 405: ("Allow",), 429: ("Retry-After",), 503: ("Retry-After",)}

SECURITY_SCHEMES: dict[str, dict[str, Any]] = {
    "bearer": {"type": "http", "scheme": "bearer"},
    "authorization": {
        "type": "apiKey",
        "in": "header",
        "name": "Authorization",
        "description": "The key alone, without a scheme before it",
    },
    "x_api_key": {"type": "apiKey", "in": "header", "name": "X-Api-Key"},
    "api_key": {"type": "apiKey", "in": "header", "name": "Api-Key"},
}
"""Any of them will do, and none is needed where the server has no keys."""


def path_parameters(path: str) -> list[dict[str, Any]]:
    """Of a path with `{name}` in it."""
    return [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in re.findall(r"\{(\w+)\}", path)
    ]


def identifier(method: str, path: str) -> str:
    """An `operationId`."""
    return "_".join([method.lower(), *re.findall(r"\w+", path)])


def answer(content: dict[str, Any], *headers: str, description: str = "OK") -> dict[str, Any]:
    """A response, which has the request's id besides the `headers` of RESPONSE_HEADERS."""
    names = ("X-Request-Id", *headers)
    return {
        "description": description,
        "headers": {name: {"$ref": f"#/components/headers/{name}"} for name in names},
        "content": content,
    }


def refusal(status: int, shapes: list[dict[str, Any]]) -> dict[str, Any]:
    """A response to a request without a result, which looks like one of the `shapes`."""
    return answer(json_content(any_of(shapes)), *_OF_STATUS.get(status, ()), description=HTTPStatus(status).phrase)


def json_content(schema: dict[str, Any]) -> dict[str, Any]:
    """The content of a body in JSON."""
    return {"application/json": {"schema": schema}}


def any_of(schemas: list[dict[str, Any]]) -> dict[str, Any]:
    """What fits one of the schemas, each of which is written once."""
    distinct = [schema for i, schema in enumerate(schemas) if schema not in schemas[:i]]
    return distinct[0] if len(distinct) == 1 else {"anyOf": distinct}


def shape(value: Any) -> dict[str, Any]:
    """The schema of values like this one."""
    if isinstance(value, dict):
        properties = {name: shape(member) for name, member in value.items()}
        return {"type": "object", "properties": properties, "required": sorted(properties)}
    if isinstance(value, list):
        return {"type": "array"} | ({"items": any_of([shape(item) for item in value])} if value else {})
    return {"type": _TYPES[type(value)]}


_TYPES: dict[type, str | list[str]] = {
    bool: "boolean",
    int: "integer",
    float: "number",
    str: "string",
    type(None): ["string", "null"],
}
