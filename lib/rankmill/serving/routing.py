"""Which route a path belongs to."""

from collections.abc import Iterable
from dataclasses import dataclass
from re import Pattern

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
        self._known: list[tuple[Pattern[str], Match]] = [(compile_path(match.template)[0], match) for match in known]

    def find(self, method: str, path: str) -> Match | None:
        """The route of a path, the first that answers to the method; else the first at all.

        A slash at the path's end makes no difference. None for an unknown path.
        """
        path = path.rstrip("/") or "/"
        other = None
        for pattern, known in self._known:
            if found := pattern.match(path):
                match = Match(known.template, known.methods, found.groupdict(), known.route)
                if method in known.methods:
                    return match
                other = other or match
        return other
