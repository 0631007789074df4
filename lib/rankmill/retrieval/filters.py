"""Filters of a search: a small part of SQL's WHERE, parsed here, so that a request reaches data and nothing else.

    filter   := all (OR all)*
    all      := one (AND one)*
    one      := NOT one | ( filter ) | COLUMN test
    test     := (= | != | <> | < | <= | > | >=) literal
              | [NOT] IN ( literal, ... ) | [NOT] LIKE 'pattern' | IS [NOT] NULL
    literal  := 12 | -1.5 | 'it''s' | TRUE | FALSE

Columns are those that the index stores, values have their type; there are no functions, no arithmetic and no
subqueries. NOT is moved down to the tests while parsing, so that stores need not agree on NOT of NULL: a test of a NULL
is never true, as in SQL. No error repeats what was in the filter.
"""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from rankmill.errors import UsageError

Kind = Literal["string", "integer", "number", "boolean"]
Value = str | int | float | bool

MAX_CHARACTERS = 4_096
MAX_DEPTH = 32
_INT64 = 2**63
_OPPOSITE = {"=": "!=", "!=": "=", "<": ">=", ">=": "<", ">": "<=", "<=": ">"}
_TOKEN = re.compile(
    r"\s*(?:(?P<string>'(?:[^']|'')*')|(?P<number>-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)(?![\w.])"
    r"|(?P<word>[A-Za-z_]\w*)|(?P<sign><=|>=|<>|!=|[=<>(),]))",
    re.ASCII,
)
_RESERVED = frozenset({"AND", "OR", "NOT", "IN", "LIKE", "IS", "NULL", "TRUE", "FALSE"})


@dataclass(frozen=True, slots=True)
class Compare:
    """`column operator value`."""

    column: str
    operator: str
    """`=`, `!=`, `<`, `<=`, `>` or `>=`."""
    value: Value


@dataclass(frozen=True, slots=True)
class OneOf:
    """`column [NOT] IN (values)`."""

    column: str
    values: tuple[Value, ...]
    negated: bool = False


@dataclass(frozen=True, slots=True)
class Like:
    """`column [NOT] LIKE pattern`: `%` is any text, `_` any character."""

    column: str
    pattern: str
    negated: bool = False


@dataclass(frozen=True, slots=True)
class IsNull:
    """`column IS [NOT] NULL`."""

    column: str
    negated: bool = False


@dataclass(frozen=True, slots=True)
class Joined:
    """All of the parts, or any of them."""

    word: Literal["AND", "OR"]
    parts: tuple["Filter", ...]


Filter = Compare | OneOf | Like | IsNull | Joined


def parse(text: str, columns: Mapping[str, Kind]) -> Filter:
    """Read a filter.

    Args:
        text: as the docstring of this module has it.
        columns: what may be named, and the type of each.

    Raises:
        UsageError: it is none; says where, and repeats nothing of it but names of `columns`.
    """
    if len(text) > MAX_CHARACTERS:
        raise UsageError(f"The filter has {len(text):,} characters; at most {MAX_CHARACTERS:,} are read.")
    parser = _Parser(_tokens(text), columns)
    found = parser.any_of(0)
    parser.end()
    return found


def render(found: Filter, leaf: "Callable[[Compare | OneOf | Like | IsNull], str]") -> str:
    """Write a filter in a store's own language, every part in brackets; `leaf` writes a single test."""
    if isinstance(found, Joined):
        return "(" + f" {found.word.lower()} ".join(render(part, leaf) for part in found.parts) + ")"
    return f"({leaf(found)})"


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    """`string`, `number`, `word`, `sign` or `end`."""
    text: str
    place: int
    """Its first character, from 1."""

    def says(self, *texts: str) -> bool:
        return self.kind in {"word", "sign"} and self.text.upper() in texts


def _tokens(text: str) -> list[_Token]:
    found, place = [], 0
    end = len(text.rstrip())
    while place < end:
        matched = _TOKEN.match(text, place)
        if matched is None or matched.lastgroup is None:
            raise UsageError(f"The filter cannot be read from character {place + 1} on.")
        start = matched.start(matched.lastgroup)
        found.append(_Token(matched.lastgroup, matched[matched.lastgroup], start + 1))
        place = matched.end()
    return [*found, _Token("end", "", end + 1)]


class _Parser:
    def __init__(self, tokens: list[_Token], columns: Mapping[str, Kind]) -> None:
        self._tokens = tokens
        self._columns = columns
        self._next = 0

    def any_of(self, depth: int) -> Filter:
        return self._joined("OR", lambda: self._joined("AND", lambda: self._one(depth)))

    def end(self) -> None:
        if self._token.kind != "end":
            raise self._expected("AND, OR or the end")

    @property
    def _token(self) -> _Token:
        return self._tokens[self._next]

    def _take(self) -> _Token:
        token = self._token
        self._next += 1
        return token

    def _takes(self, *texts: str) -> bool:
        if self._token.says(*texts):
            self._next += 1
            return True
        return False

    def _expected(self, what: str) -> UsageError:
        return UsageError(f"The filter needs {what} at character {self._token.place}.")

    def _joined(self, word: Literal["AND", "OR"], part: Callable[[], Filter]) -> Filter:
        parts = [part()]
        while self._takes(word):
            parts.append(part())
        return parts[0] if len(parts) == 1 else Joined(word, tuple(parts))

    def _one(self, depth: int) -> Filter:
        if depth > MAX_DEPTH:
            raise UsageError(f"The filter is nested more than {MAX_DEPTH} deep.")
        if self._takes("NOT"):
            return _negated(self._one(depth + 1))
        if self._takes("("):
            inner = self.any_of(depth + 1)
            self._close()
            return inner
        return self._test()

    def _close(self) -> None:
        if not self._takes(")"):
            raise self._expected("a closing bracket")

    def _test(self) -> Filter:
        token = self._token
        if token.kind != "word" or token.text.upper() in _RESERVED:
            raise self._expected("a column")
        if token.text not in self._columns:
            raise UsageError(
                f"The filter names a column at character {token.place} that the index does not have; it has "
                f"{', '.join(self._columns)}."
            )
        column = self._take().text
        if self._takes("IS"):
            negated = self._takes("NOT")
            if not self._takes("NULL"):
                raise self._expected("NULL")
            return IsNull(column, negated)
        negated = self._takes("NOT")
        if self._takes("IN"):
            return OneOf(column, self._values(column), negated)
        if self._takes("LIKE"):
            return self._like(column, negated=negated)
        if negated or not self._token.says("=", "<>", *_OPPOSITE):
            raise self._expected("IN or LIKE" if negated else "a comparison")
        operator = self._take().text.replace("<>", "!=")
        return Compare(column, operator, self._value(column))

    def _like(self, column: str, *, negated: bool) -> Like:
        if self._columns[column] != "string":
            raise UsageError(f"The filter compares {column} by LIKE, but it holds no strings.")
        if self._token.kind != "string":
            raise self._expected("a pattern in single quotes")
        return Like(column, _unquoted(self._take().text), negated)

    def _values(self, column: str) -> tuple[Value, ...]:
        if not self._takes("("):
            raise self._expected("an opening bracket")
        values = [self._value(column)]
        while self._takes(","):
            values.append(self._value(column))
        self._close()
        return tuple(values)

    def _value(self, column: str) -> Value:
        kind, token = self._columns[column], self._token
        value: Value | None = None
        if kind == "string" and token.kind == "string":
            value = _unquoted(token.text)
        elif kind == "boolean" and token.says("TRUE", "FALSE"):
            value = token.text.upper() == "TRUE"
        elif kind == "integer" and token.kind == "number" and token.text.lstrip("-").isdecimal():
            value = int(token.text)
            value = value if abs(value) < _INT64 else None  # LanceDB cannot read the smallest integer
        elif kind == "number" and token.kind == "number":
            value = float(token.text) if math.isfinite(float(token.text)) else None
        if value is None:
            raise UsageError(f"The filter compares {column} at character {token.place} with what is no {kind}.")
        self._next += 1
        return value


def _unquoted(text: str) -> str:
    return text[1:-1].replace("''", "'")


def _negated(found: Filter) -> Filter:
    if isinstance(found, Joined):
        return Joined("OR" if found.word == "AND" else "AND", tuple(map(_negated, found.parts)))
    if isinstance(found, Compare):
        return replace(found, operator=_OPPOSITE[found.operator])
    return replace(found, negated=not found.negated)
