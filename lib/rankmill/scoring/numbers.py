"""Numbers out of a config.json."""

from collections.abc import Mapping
from typing import Any

from rankmill.errors import ModelError


def integer(config: Mapping[str, Any], key: str, default: int, file: str = "config.json") -> int:
    """A number of config.json, or of another `file`, or `default` where it states none.

    Raises:
        ModelError: it is something else.
    """
    value = config.get(key, default)
    if not isinstance(value, int) or isinstance(value, bool):
        raise ModelError(f"{file} says {key} = {value!r}, where a whole number belongs.")
    return value
