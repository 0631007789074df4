"""Which route a path belongs to."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from starlette.routing import compile_path

from rankmill.serving.dialects.routes import Route


@dataclass(frozen=True, slots=True)
class Match:
    """A path that was found."""

    template: str
    """Of the route: what metrics and logs say, instead of what the client wrote."""
    methods: tuple[str, ...]
    """That the path answers to."""
    parameters: dict[str, str]
    route: Route | None
    """Where a dialect is spoken; None for what the gateway answers in words of its own."""


class RouteTable:
    """Finds routes.

    Args:
        routes: where dialects are spoken, fixed paths before templates.
        pages: Starlette templates of what is answered to GET.
        actions: the same of what is answered to POST, in no dialect.
    """

    def __init__(self, routes: Iterable[Route], pages: Iterable[str], actions: Iterable[str] = ()) -> None:
        known = [Match(route.path, (route.method,), {}, route) for route in routes]
        known += [Match(page, ("GET", "HEAD"), {}, None) for page in pages]
        known += [Match(action, ("POST",), {}, None) for action in actions]
        self._known = [(_pattern(match.template), match) for match in known]

    def find(self, method: str, path: str) -> Match | None:
        """The route of a path, the first that answers to the method; else the first at all.

        A slash at the path's end makes no difference. None for an unknown path.
        """
        path = path.rstrip("/") or "/"
        other = None
        for pattern, known in self._known:
            if found := pattern.fullmatch(path):
                match = Match(known.template, known.methods, found.groupdict(), known.route)
                if method in known.methods:
                    return match
                other = other or match
        return other


def _pattern(template: str) -> re.Pattern[str]:
    """Of a Starlette template. A model's name is any text of the client's, line breaks included."""
    return re.compile(compile_path(template)[0].pattern, re.DOTALL)
