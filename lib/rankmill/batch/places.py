"""Where a job reads and writes, looked at before anything else: no place that is none, none inside the other."""

import os
import re
from contextlib import suppress
from glob import has_magic
from pathlib import Path

from fsspec.utils import glob_translate

from rankmill.errors import UsageError
from rankmill.settings.plan import PlanSettings
from rankmill.settings.rerank import RerankSettings
from rankmill.storage.uris import refuse_unusable, split_uri
from rankmill.tables.locate import absolute, is_hidden

_SAME = {"s3a": "s3", "gcs": "gs", "": "file"}
_WRITTEN = ("part-000000.parquet", "_SUCCESS", "_rankmill/job.json", "_rejected/part-000000-0123456789abcdef.parquet")
"""Files such as an output has, for patterns that might match them."""


def refuse_places(settings: RerankSettings) -> None:
    """Refuse inputs and outputs that cannot be meant.

    Raises:
        UsageError: one of them names no place or carries credentials, the output is a file, or one lies in the other:
            the rankings would be part of the input of the next run, which then is a different job.
    """
    for flag, uri in _inputs(settings).items():
        refuse_unusable(uri, f"{flag} {uri}".strip())
    if not settings.output and isinstance(settings, PlanSettings):
        return  # it can do without
    refuse_unusable(settings.output, f"--output {settings.output}".strip())
    _refuse_file(settings.output)
    for flag, uri in _inputs(settings).items():
        _refuse_overlap(flag, uri, settings.output)


def places(settings: RerankSettings) -> dict[str, str]:
    """Where the input is, in words that a later command understands in any working directory."""
    return {flag.removeprefix("--"): absolute(uri) for flag, uri in _inputs(settings).items()}


def _inputs(settings: RerankSettings) -> dict[str, str]:
    """What is read, by its flag."""
    given = {"--input": settings.input, "--queries": settings.queries, "--corpus": settings.corpus}
    return {flag: uri for flag, uri in given.items() if uri is not None}


def _refuse_file(output: str) -> None:
    scheme, path = _place(output)
    if scheme != "file":
        return
    with suppress(PermissionError):  # the store will say so
        there = next(part for part in (Path(path), *Path(path).parents) if part.exists())
        if not there.is_dir():
            raise UsageError(f"--output {output}: {there} is a file; give a folder.")


def _refuse_overlap(flag: str, source: str, output: str) -> None:
    (scheme, read), (other, written) = _place(source), _place(output)
    if scheme != other:
        return
    parts = read.split("/")
    root = "/".join(parts[: next((n for n, part in enumerate(parts) if has_magic(part)), len(parts))])
    if _contains(written, root):
        raise UsageError(f"{flag} {source} lies in --output {output}. Give the rankings a folder of their own.")
    if root != read and any(re.match(glob_translate(read), f"{written}/{name}") for name in _WRITTEN):
        raise UsageError(
            f"{flag} {source} would match the rankings in --output {output} too, and the next run would take them for "
            "input. Give a folder that it does not match."
        )
    if root == read and _contains(read, written) and not is_hidden(written[len(read) :].strip("/")):
        raise UsageError(
            f"--output {output} lies in {flag} {source}, and the next run would take the rankings for input. Give a "
            "folder beside it, or one whose name begins with an underscore."
        )


def _contains(folder: str, path: str) -> bool:
    return f"{path}/".startswith(f"{folder.rstrip('/')}/")


def _place(uri: str) -> tuple[str, str]:
    """Scheme and path in one spelling; of local paths, what symbolic links lead to."""
    scheme, path = split_uri(uri)
    scheme = _SAME.get(scheme, scheme)
    return scheme, os.path.realpath(path) if scheme == "file" else path.rstrip("/")
