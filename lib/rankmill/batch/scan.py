"""Looks at the whole input before anything else starts: every file readable, one layout, and where the queries lie."""

import logging
from collections import Counter, defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import pyarrow as pa

from rankmill.batch.join_tables import Texts, files_of, open_texts
from rankmill.errors import InputError
from rankmill.settings.rerank import RerankSettings
from rankmill.tables import jsonl, parquet, run
from rankmill.tables.footers import read_footer
from rankmill.tables.lines import line_limit
from rankmill.tables.locate import InputFile, find_files, list_files
from rankmill.tables.runs import Runs, runs_of
from rankmill.tables.schema import Layout, differences, layout_of

_log = logging.getLogger("rankmill")

_THREADS = 16  # footers are small and far away: the wait is latency
_MAX_PROBLEMS = 50
_TEXT_PER_COMPRESSED_BYTE = 4  # of a JSONL.gz; Parquet says its uncompressed size


@dataclass(frozen=True, slots=True)
class Inspected:
    """What the input looks like from its footers and first lines."""

    files: tuple[InputFile, ...]
    layout: Layout
    text_bytes: int
    """Uncompressed size of all columns; an estimate for JSONL."""
    texts: Texts | None = None
    """What a run is joined with; None for an input that brings its texts."""
    unverified: int = 0
    """Files that carry no checksums: a byte that flipped in one of them earlier cannot be noticed."""

    @property
    def every_file(self) -> tuple[InputFile, ...]:
        """All files that decide the output."""
        return self.files if self.texts is None else (*self.files, *self.texts.files)


def look_again(settings: RerankSettings) -> tuple[InputFile, ...]:
    """All the files that decide the output, as they are now.

    Raises:
        InputError: nothing there.
        StorageError: the store refused or could not be reached.
    """
    if settings.queries is None:
        return find_files(settings.input, settings.storage)
    return (*list_files(settings.input, f"--input {settings.input}", settings.storage), *files_of(settings))


def inspect_run(settings: RerankSettings) -> Inspected:
    """Read the schemas of a run, of its queries and of its corpus, and decide how to read them.

    Raises:
        InputError: nothing there, unreadable or empty files, missing or unusable columns, files that differ; every
            culprit of a table named.
        StorageError: a store refused or could not be reached.
    """
    name = f"--input {settings.input}"
    files = list_files(settings.input, name, settings.storage)
    lines = [file.uri for file in files if file.format == "jsonl"]
    if lines or not files:
        raise InputError(
            f"{name}: with --queries and --corpus it must be a run, in Parquet or in TREC's format.", lines
        )
    looks = _looks(files, settings)
    files, problems = _sorted_out(files, looks, settings)
    there = {name for look in looks if isinstance(look, _Look) for name in look.schema.names}
    own = sorted(there & run.texts_of(settings.columns))
    if own:
        _log.warning(
            "%s: its own texts (%s) are not read, because --queries and --corpus are given: leave those out to score "
            "what the input holds",
            name,
            ", ".join(own),
        )
    of_run = tuple(name for name in settings.keep if name in there - run.texts_of(settings.columns))
    layouts: list[tuple[InputFile, Layout]] = []
    for file, look in zip(files, looks, strict=True):
        if isinstance(look, str):
            continue
        schema = run.trec_schema(settings.columns) if file.format == "trec" else look.schema
        layout, found = run.run_layout(schema, settings.columns, of_run)
        problems += [f"{file.uri}: {problem}" for problem in found]
        if layout is not None:
            layouts.append((file, layout))
    problems += _groups(layouts)
    if not layouts and not problems:
        problems = [file.problem for file in files]
    refuse(settings.input, problems)
    score = any(layout.retrieval_score for _, layout in layouts)
    size = sum(look.text_bytes for look in looks if not isinstance(look, str))
    texts = open_texts(settings, tuple(name for name in settings.keep if name not in of_run))
    kept = {item.name: item for item in (*layouts[0][1].keep, *texts.corpus.keep)}
    layout = replace(
        layouts[0][1],
        retrieval_score=score,
        max_text_bytes=settings.max_text_bytes,
        keep=tuple(kept[name] for name in settings.keep),
    )
    unverified = _unverified(looks) + sum(not item.checked for item in (*texts.queries.files, *texts.corpus.files))
    return Inspected(files, layout, size, texts, unverified)


def inspect(settings: RerankSettings) -> Inspected:
    """Read the schema of every file and decide how to read them.

    Raises:
        InputError: nothing there, unreadable or empty files (unless they are to be rejected), missing or unusable
            columns, files that differ; every culprit named.
        StorageError: the store refused or could not be reached.
    """
    files = find_files(settings.input, settings.storage)
    looks = _looks(files, settings)
    files, problems = _sorted_out(files, looks, settings)
    layouts: list[tuple[InputFile, Layout]] = []
    for file, look in zip(files, looks, strict=True):
        if isinstance(look, str):
            continue
        layout, found = layout_of(look.schema, settings.columns, settings.keep, settings.document_template)
        problems += [f"{file.uri}: {problem}" for problem in found]
        if layout is not None:
            layouts.append((file, layout.with_optional_columns() if file.format == "jsonl" else layout))
    problems += _groups(layouts)
    if not layouts and not problems:
        problems = [file.problem for file in files]
    empty = [look for look in looks if isinstance(look, _Look) and not look.has_rows]
    if layouts and len(empty) == len(layouts):
        problems.append(f"{layouts[0][0].uri}: it has no rows" + (", nor have the others." if empty[1:] else "."))
    refuse(settings.input, problems)
    title, score = (any(getattr(layout, name) for _, layout in layouts) for name in ("title", "retrieval_score"))
    return Inspected(
        files=files,
        layout=replace(layouts[0][1], title=title, retrieval_score=score, max_text_bytes=settings.max_text_bytes),
        text_bytes=sum(look.text_bytes for look in looks if not isinstance(look, str)),
        unverified=_unverified(looks),
    )


def refuse(pattern: str, problems: Sequence[str]) -> None:
    """Raise InputError when there are problems, with all of them."""
    if problems:
        more = [f"and {len(problems) - _MAX_PROBLEMS:,} more"] if len(problems) > _MAX_PROBLEMS else []
        message = f"--input {pattern} cannot be used; nothing was written."
        raise InputError(message, [*problems[:_MAX_PROBLEMS], *more])


def whole_file(file: InputFile) -> Runs:
    """What stands for a file that is rejected as a whole: one row, of a query of its own."""
    return runs_of(pa.array([f"unreadable file {file.uri}"]), np.ones(1, dtype=np.int64), 0)


def find_runs(file: InputFile, layout: Layout) -> Runs | str:
    """Find where each query's rows lie in a file; the sentence that says why it cannot be read if it is damaged.

    Raises:
        StorageError: the store refused or could not be reached.
    """
    if file.problem:
        return whole_file(file)
    try:
        read = {"parquet": parquet.find_runs, "jsonl": jsonl.find_runs, "trec": run.find_runs}
        return read[file.format](file, layout)
    except InputError as error:
        return str(error)


@dataclass(frozen=True, slots=True)
class _Look:
    """What a file's footer or first lines say."""

    schema: pa.Schema
    text_bytes: int
    checked: bool
    """Whether it carries checksums."""
    has_rows: bool = True


def _looks(files: Sequence[InputFile], settings: RerankSettings) -> list[_Look | str]:
    """What all files say of themselves; equal schemas are held once, because there may be ten thousand."""
    known: dict[pa.Schema, pa.Schema] = {}
    with ThreadPoolExecutor(_THREADS) as pool:
        looks = pool.map(partial(_look, max_text_bytes=settings.max_text_bytes), files)
        return [
            look if isinstance(look, str) else replace(look, schema=known.setdefault(look.schema, look.schema))
            for look in looks
        ]


def _unverified(looks: Sequence[_Look | str]) -> int:
    return sum(isinstance(look, _Look) and not look.checked for look in looks)


def _look(file: InputFile, max_text_bytes: int) -> _Look | str:
    """What a file says of itself, or the sentence that says why it cannot be read."""
    if file.size == 0:
        return f"{file.uri}: it is empty (0 bytes)."
    try:
        if file.format == "parquet":
            footer = read_footer(file)
            return _Look(footer.schema, footer.uncompressed_bytes, footer.checked, has_rows=footer.rows > 0)
        if file.format == "trec":
            return _Look(pa.schema([]), file.size, file.compressed)
        factor = _TEXT_PER_COMPRESSED_BYTE if file.compressed else 1  # gzip has a checksum at its end
        return _Look(jsonl.sample_schema(file, line_limit(max_text_bytes)), file.size * factor, file.compressed)
    except InputError as error:
        return str(error)


def _sorted_out(
    files: Sequence[InputFile], looks: Sequence[_Look | str], settings: RerankSettings
) -> tuple[tuple[InputFile, ...], list[str]]:
    """The files, those that cannot be read marked as such where they are to be rejected, and problems where not."""
    broken = {file.uri: look for file, look in zip(files, looks, strict=True) if isinstance(look, str)}
    if settings.bad_files == "refuse":
        return tuple(files), list(broken.values())
    return tuple(replace(file, problem=broken.get(file.uri, "")) for file in files), []


def _groups(layouts: Sequence[tuple[InputFile, Layout]]) -> list[str]:
    """One sentence for all the files that differ in one way from what most files are."""
    if not layouts:
        return []
    usual, _ = Counter(layout for _, layout in layouts).most_common(1)[0]
    like = [file for file, layout in layouts if layout == usual]
    others: dict[tuple[str, ...], list[InputFile]] = defaultdict(list)
    for file, layout in layouts:
        if layout != usual:
            others[tuple(_differences((like[0], usual), (file, layout)))].append(file)
    them = like[0].uri + (f" and {len(like) - 1:,} more like it" if like[1:] else "")
    return [
        f"{files[0].uri} differs from {them}: {'; '.join(found)}"
        if len(files) == 1
        else f"{files[0].uri} and {len(files) - 1:,} more like it differ from {them}: {'; '.join(found)}"
        for found, files in others.items()
        if found
    ]


def _differences(first: tuple[InputFile, Layout], other: tuple[InputFile, Layout]) -> list[str]:
    (one, here), (two, there) = first, other
    if one.format != two.format:  # JSONL has every optional column, and Parquet is read as if it had
        there = replace(there, title=here.title, retrieval_score=here.retrieval_score)
    return differences(here, there)
