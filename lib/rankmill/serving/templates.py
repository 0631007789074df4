"""`{{INPUT.x}}` in the stages of a pipeline."""

import re
from collections.abc import Mapping

from pydantic import JsonValue

from rankmill.serving.request_error import Kind, RequestError

MOST_CHARACTERS = 1_000_000
"""Of all texts that templates are filled into: a long input named many times would grow a small body without limit."""
_TEMPLATE = re.compile(r"\{\{\s*INPUT\.([A-Za-z_][A-Za-z0-9_]*)\s*\}\}")


class Templates:
    """Fills in the inputs of one request.

    Args:
        inputs: what `{{INPUT.x}}` stands for.
    """

    def __init__(self, inputs: Mapping[str, JsonValue]) -> None:
        self._inputs = inputs
        self._left = MOST_CHARACTERS

    def fill(self, value: JsonValue) -> JsonValue:
        """Replace the templates of every string: alone it becomes the input itself, within a text it becomes its text.

        Raises:
            RequestError: INVALID, an input that is not there, one that is no text within a text, or too much text.
        """
        if isinstance(value, list):
            return [self.fill(item) for item in value]
        if isinstance(value, dict):
            return {name: self.fill(item) for name, item in value.items()}
        if not isinstance(value, str):
            return value
        whole = _TEMPLATE.fullmatch(value)
        if whole is not None:
            return self._input(whole[1])
        return _TEMPLATE.sub(lambda found: self._text(self._input(found[1])), value)

    def fill_filter(self, value: JsonValue) -> JsonValue:
        """Replace the templates of a filter, each by a literal of `retrieval.filters`: no input is ever part of a test.

        Within single quotes, an input goes on with that string; elsewhere a string gets quotes of its own, and a number
        or a boolean stands for itself; a null that is all of it is no filter. `%` and `_` of an input mean in a LIKE
        pattern what they always mean there.

        Raises:
            RequestError: INVALID, as `fill`, or an input that is neither text, number nor boolean.
        """
        whole = _TEMPLATE.fullmatch(value) if isinstance(value, str) else None
        if not isinstance(value, str) or (whole is not None and self._input(whole[1]) is None):
            return self.fill(value)
        parts, quoted, end = [], False, 0
        for found in _TEMPLATE.finditer(value):
            before = value[end : found.start()]
            quoted ^= before.count("'") % 2 == 1
            given = self._input(found[1])
            parts += [before, self._within_quotes(given) if quoted else f" {self._literal(given)} "]
            end = found.end()
        return "".join([*parts, value[end:]])

    def _literal(self, value: JsonValue) -> str:
        if isinstance(value, bool):
            return "TRUE" if value else "FALSE"
        return f"'{self._within_quotes(value)}'" if isinstance(value, str) else self._text(value)

    def _within_quotes(self, value: JsonValue) -> str:
        return self._text(value).replace("'", "''")

    def _input(self, name: str) -> JsonValue:
        if name not in self._inputs:
            raise _invalid("A template of a stage names an input that is not among the inputs.")
        return self._inputs[name]

    def _text(self, value: JsonValue) -> str:
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            raise _invalid("An input within a text must be a string or a number.")
        text = str(value)
        self._left -= len(text)
        if self._left < 0:
            raise _invalid(f"Inputs within texts have more than {MOST_CHARACTERS:,} characters, once filled in.")
        return text


def _invalid(message: str) -> RequestError:
    return RequestError(Kind.INVALID, message, "inputs")
