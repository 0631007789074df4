"""Builds a command's settings from its flags, `RANKMILL_…` environment variables and `--config FILE.yaml`.

A flag `--columns.query-id qid` is `RANKMILL_COLUMNS__QUERY_ID=qid` in the environment, and in a file either
`columns.query-id: qid` or `columns: {query-id: qid}`; underscores do as well.

Settings classes are plain frozen pydantic models: constructed in Python they read nothing but their arguments. Only
this module, called at the entry point, looks at the outside world. Flags win over the environment, which wins over the
file.
"""

import difflib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_origin

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_settings import (
    BaseSettings,
    CliSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from rankmill.errors import UsageError

PREFIX = "RANKMILL_"
"""Of the environment variables that are settings."""


class CommandSettings(BaseModel):
    """Base of every command's settings: frozen, and a misspelled key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True, validate_default=True)


S = TypeVar("S", bound=CommandSettings)


def load_settings(settings_class: type[S], arguments: Sequence[str], prog: str) -> S:
    """Parse one command's flags.

    Args:
        settings_class: what to build.
        arguments: the flags, without the program and the command name.
        prog: the command as the user typed it, for the help text.

    Raises:
        UsageError: an unknown flag or key, a missing or an invalid value; all of them named.
        SystemExit: with code 0 after `--help`.
    """
    config_file, flags = _take_config(arguments)

    class FromOutside(BaseSettings, settings_class):  # type: ignore[valid-type, misc]
        model_config = SettingsConfigDict(
            populate_by_name=False,  # or every aliased flag would be there twice
            cli_kebab_case=True,
            cli_implicit_flags=True,
            cli_exit_on_error=False,
            cli_hide_none_type=True,
            cli_avoid_json=True,
        )

        @classmethod
        def settings_customise_sources(
            cls,
            settings_cls: type[BaseSettings],
            init_settings: PydanticBaseSettingsSource,
            env_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - our own reading of it is among `init_settings`
            dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - the signature is pydantic's
            file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            command_line: CliSettingsSource[Any] = CliSettingsSource(
                settings_cls, cli_prog_name=prog, cli_parse_args=list(flags), cli_exit_on_error=False
            )
            return command_line, init_settings

    FromOutside.__doc__ = settings_class.__doc__
    try:
        parsed = FromOutside(**_merged(_read_config(config_file), _from_environment(settings_class, os.environ)))
    except ValidationError as error:
        raise UsageError(_explain(error, prog)) from error
    except SettingsError as error:
        raise UsageError(_explain_flags(str(error), settings_class, prog)) from error
    return settings_class.model_validate(parsed.model_dump(by_alias=True))


def flags_of(settings_class: type[BaseModel], prefix: str = "") -> list[str]:
    """List every flag of a settings class, nested ones dotted."""
    names: list[str] = []
    for name, field in settings_class.model_fields.items():
        flag = f"{prefix}{(field.alias or name).replace('_', '-')}"
        nested = field.annotation
        if isinstance(nested, type) and issubclass(nested, BaseModel):
            names += flags_of(nested, f"{flag}.")
        else:
            names.append(f"--{flag}")
    return names


def variables_of(settings_class: type[BaseModel]) -> list[str]:
    """List the environment variable of every flag."""
    return [
        PREFIX + flag.removeprefix("--").replace(".", "__").replace("-", "_").upper()
        for flag in flags_of(settings_class)
    ]


def _take_config(arguments: Sequence[str]) -> tuple[str | None, list[str]]:
    """Split `--config FILE` off the flags; the file feeds all of them, so it is read before they are parsed."""
    flags: list[str] = []
    config = None
    rest = iter(arguments)
    for argument in rest:
        if argument == "--config":
            config = next(rest, None)
            if config is None:
                raise UsageError("--config needs a file name.")
        elif argument.startswith("--config="):
            config = argument.removeprefix("--config=")
        else:
            flags.append(argument)
    return config, flags


def _read_config(path: str | None) -> dict[str, Any]:
    if path is None:
        return {}
    try:
        values = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"--config {path}: {error.strerror or error}.") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UsageError(f"--config {path} is not valid YAML: {error}") from error
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise UsageError(f"--config {path} must hold `flag: value` lines, not a {type(values).__name__}.")
    return _nested(values)


def _from_environment(settings_class: type[BaseModel], environ: Mapping[str, str]) -> dict[str, Any]:
    """What the environment says of this command's settings; its other variables are those of other commands."""
    fields = {field.alias or name: field for name, field in settings_class.model_fields.items()}
    given: dict[str, Any] = {
        name.removeprefix(PREFIX).lower().replace("__", "."): value
        for name, value in environ.items()
        # Kubernetes tells each pod of a service named rankmill: RANKMILL_PORT=tcp://10.0.0.1:8000
        if name.startswith(PREFIX) and value and not value.startswith("tcp://")
    }
    values = {name: value for name, value in _nested(given).items() if name in fields}
    for name, value in values.items():
        if get_origin(fields[name].annotation) is list and isinstance(value, str):
            values[name] = value.split(",")
    return values


def _nested(values: Mapping[Any, Any]) -> dict[str, Any]:
    """Turn flags' names into fields' names, at every level, and dots into levels."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        name, _, below = str(key).replace("-", "_").partition(".")
        found = _merged(found, {name: _nested({below: value}) if below else _with_names(value)})
    return found


def _with_names(value: Any) -> Any:
    """A value of a --config file: lists may hold the settings of several things."""
    if isinstance(value, Mapping):
        return _nested(value)
    return [_with_names(item) for item in value] if isinstance(value, list) else value


def _merged(low: Mapping[str, Any], high: Mapping[str, Any]) -> dict[str, Any]:
    """Both, level by level; `high` wins."""
    merged = dict(low)
    for name, value in high.items():
        before = merged.get(name)
        merged[name] = _merged(before, value) if isinstance(before, dict) and isinstance(value, dict) else value
    return merged


def _explain(error: ValidationError, prog: str) -> str:
    """One line a problem, each beginning with the flag it is about."""
    lines = []
    for problem in error.errors():
        flag = "--" + ".".join(str(part) for part in problem["loc"]).replace("_", "-") if problem["loc"] else "flags"
        message = problem["msg"].removeprefix("Value error, ")
        if problem["type"] == "missing":
            lines.append(f"{flag} is required.")
        elif problem["type"] == "extra_forbidden":
            lines.append(f"{flag} is not a setting of `{prog}`; `{prog} --help` lists them.")
        elif problem["loc"]:
            lines.append(f"{flag} {problem['input']}: {message}")
        else:
            lines.append(message)
    return "\n".join(lines)


def _explain_flags(message: str, settings_class: type[BaseModel], prog: str) -> str:
    """Turn argparse's words about an unknown flag into ours, with the nearest real flag."""
    text = message.removeprefix("error parsing CLI: ")
    marker = "unrecognized arguments: "
    if marker not in text:
        return f"{text}. `{prog} --help` lists the flags."
    unknown = text.split(marker, 1)[1].split()
    lines = []
    for flag in (word for word in unknown if word.startswith("-")):
        near = difflib.get_close_matches(flag.split("=")[0], flags_of(settings_class), n=1)
        hint = f" Did you mean {near[0]}?" if near else ""
        lines.append(f"{flag.split('=')[0]} is not a flag of `{prog}`.{hint}")
    return "\n".join(lines or [f"Unexpected: {' '.join(unknown)}."]) + f"\n`{prog} --help` lists the flags."
