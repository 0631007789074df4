"""Reads judgements and runs, from local paths or any fsspec URI.

Judgements: BEIR's TSV (a header `query-id corpus-id score`), TREC's four columns (`query_id iteration doc_id
relevance`), or Parquet (`query_id, doc_id, relevance`). Runs: TREC's six columns, or Parquet (`query_id, doc_id,
score`, optional `rank`): one file, several by a glob, or a folder such as the output of `rankmill rerank`, whose
`--shape nested` (one row per query, results in a list `candidates`) is understood too.
"""

import difflib
from collections.abc import Sequence

import fsspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from rankmill.errors import InputError
from rankmill.settings.storage import StorageSettings
from rankmill.tables.complete import open_parquet, read_groups
from rankmill.tables.errors import storage_errors
from rankmill.tables.locate import InputFile, format_of, fsspec_options, list_files, open_input
from rankmill.tables.trec import Problems, read_run, read_text_lines

_ENVIRONMENT = StorageSettings()
"""What the process's own environment says."""

_BEIR_HEADER = ["query-id", "corpus-id", "score"]
_TREC_COLUMNS = 4
_NESTED = "candidates"
_EXPECTED_QRELS = "BEIR (header `query-id corpus-id score`, tabs) or TREC (query_id iteration doc_id relevance)"


def read_qrels(uri: str, storage: StorageSettings = _ENVIRONMENT) -> dict[str, dict[str, int]]:
    """Relevance by query id and document id, in file order.

    Args:
        uri: of the judgements.
        storage: where an object store is and who signs.

    Raises:
        InputError: no such file, no judgement in it, unusable lines (the first 20 are named; none may have more than
            64 MiB), missing columns, a document judged twice for a query with different results.
        StorageError: the file system refused.
    """
    qrels = _parquet_qrels(uri, storage) if _is_parquet(uri, storage) else _text_qrels(uri, storage)
    if not qrels:
        raise InputError(f"{uri} holds no judgements; expected {_EXPECTED_QRELS}, or Parquet.")
    return qrels


def read_results(uri: str, storage: StorageSettings = _ENVIRONMENT) -> pa.Table:
    """A run: `query_id, doc_id` (strings), `score` (float64) and, where the file has it, `rank` (int64).

    Args:
        uri: of the run.
        storage: where an object store is and who signs.

    Raises:
        InputError: no such file, nothing in it, unusable lines, missing columns, null values.
        StorageError: the file system refused.
    """
    if not _is_parquet(uri, storage):
        return read_run(uri, storage)
    table = _read_parquet(uri, storage, required=("query_id", "doc_id", "score"), optional=("rank",))
    if table.num_rows == 0:
        raise InputError(f"{uri} holds no results: all its Parquet files are empty.")
    return table


def _text_qrels(uri: str, storage: StorageSettings) -> dict[str, dict[str, int]]:
    qrels: dict[str, dict[str, int]] = {}
    problems = Problems(uri)
    is_beir = False
    for number, line in read_text_lines(uri, storage):
        fields = line.split()
        if number == 1 and fields == _BEIR_HEADER:
            is_beir = True
            continue
        if not fields:
            continue
        # BEIR separates by tabs, so that its ids may hold blanks; files that were edited by hand often do not.
        values = line.rstrip("\n").split("\t") if is_beir and "\t" in line else fields
        parsed = _judgement(values, is_beir=is_beir)
        if isinstance(parsed, str):
            problems.add(number, parsed)
            continue
        query_id, doc_id, relevance = parsed
        known = qrels.setdefault(query_id, {}).setdefault(doc_id, relevance)
        if known != relevance:
            problems.add(
                number,
                f"document {doc_id!r} is judged {relevance} for query {query_id!r}, but {known} further up",
            )
    problems.refuse(_EXPECTED_QRELS)
    return qrels


def _judgement(fields: Sequence[str], *, is_beir: bool) -> tuple[str, str, int] | str:
    """Query, document, relevance; or a sentence that says what is wrong."""
    expected = len(_BEIR_HEADER) if is_beir else _TREC_COLUMNS
    if len(fields) != expected:
        hint = ""
        if not is_beir and len(fields) == len(_BEIR_HEADER):
            hint = "; a file with 3 columns needs the header `query-id corpus-id score`"
        return f"{len(fields)} columns instead of {expected}{hint}"
    query_id, doc_id, relevance = fields if is_beir else (fields[0], fields[2], fields[3])
    try:
        return query_id.strip(), doc_id.strip(), int(relevance)
    except ValueError:
        return f"the relevance is {relevance!r}, not a whole number"


def _parquet_qrels(uri: str, storage: StorageSettings) -> dict[str, dict[str, int]]:
    table = _read_parquet(uri, storage, required=("query_id", "doc_id", "relevance"))
    qrels: dict[str, dict[str, int]] = {}
    problems: list[str] = []
    columns = (table[name].to_pylist() for name in ("query_id", "doc_id", "relevance"))
    for query_id, doc_id, relevance in zip(*columns, strict=True):
        known = qrels.setdefault(query_id, {}).setdefault(doc_id, relevance)
        if known != relevance:
            problems.append(f"document {doc_id!r} for query {query_id!r}: {known} and {relevance}")
    if problems:
        raise InputError(f"{uri} judges {len(problems):,} documents twice, differently.", problems[:20])
    return qrels


_TYPES = {
    "query_id": pa.string(),
    "doc_id": pa.string(),
    "relevance": pa.int64(),
    "rank": pa.int64(),
    "score": pa.float64(),
}


def _read_parquet(
    uri: str, storage: StorageSettings, required: Sequence[str], optional: Sequence[str] = ()
) -> pa.Table:
    """The named columns of one or many Parquet files, cast to `_TYPES`, in the order of the file names."""
    files = [file for file in list_files(uri, storage=storage) if format_of(file.uri) == "parquet"]
    if not files:
        raise InputError(f"{uri} holds no Parquet files.")
    tables = []
    problems: list[str] = []
    for file in files:
        path = file.uri
        try:
            with storage_errors(path), open_input(path, storage) as handle:
                parquet = open_parquet(file, handle)
                names = _names(parquet.schema_arrow)
                if missing := [name for name in required if name not in names]:
                    problems += [f"{path}: {_missing_column(name, names)}" for name in missing]
                    continue
                wanted = [*required, *(name for name in optional if name in names)]
                table = _read_columns(file, parquet, wanted)
                tables.append(_cast(table, wanted, path, problems))
        except InputError as error:
            problems.append(str(error))
    if problems:
        raise InputError(f"{uri} cannot be used.", problems[:20])
    shared = [name for name in tables[0].column_names if all(name in table.column_names for table in tables)]
    return pa.concat_tables([table.select(shared) for table in tables])


def _names(schema: pa.Schema) -> list[str]:
    """Columns of a file; those of the results in a nested one."""
    if not _is_nested(schema):
        return list(schema.names)
    inner = schema.field(_NESTED).type.value_type
    return [*(name for name in schema.names if name != _NESTED), *(field.name for field in inner)]


def _is_nested(schema: pa.Schema) -> bool:
    if "doc_id" in schema.names or _NESTED not in schema.names:
        return False
    kind = schema.field(_NESTED).type
    return bool((pa.types.is_list(kind) or pa.types.is_large_list(kind)) and pa.types.is_struct(kind.value_type))


def _read_columns(file: InputFile, parquet: pq.ParquetFile, names: Sequence[str]) -> pa.Table:
    """The named columns, one row per result."""
    groups = range(parquet.num_row_groups)
    if not _is_nested(parquet.schema_arrow):
        return read_groups(file, parquet, groups, names)
    outer = [name for name in names if name in parquet.schema_arrow.names]
    table = read_groups(file, parquet, groups, [*outer, _NESTED]).combine_chunks()
    lists = table[_NESTED]
    results = pc.list_flatten(lists)
    flat = table.select(outer).take(pc.list_parent_indices(lists))
    for name in names:
        if name not in outer:
            flat = flat.append_column(name, pc.struct_field(results, name))
    return flat.select(list(names))


def _cast(table: pa.Table, names: Sequence[str], path: str, problems: list[str]) -> pa.Table:
    columns = []
    for name in names:
        column = table[name]
        if column.null_count:
            problems.append(f"{path}: column {name} has {column.null_count:,} null values; it may have none")
        try:
            columns.append(pc.cast(column, _TYPES[name]))
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            problems.append(f"{path}: column {name} is {column.type}, which is no {_TYPES[name]} ({error})")
            columns.append(pa.nulls(len(column), _TYPES[name]))
    return pa.table(columns, names=list(names))


def _missing_column(name: str, names: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, names, n=1)
    hint = f" Did you mean {near[0]}?" if near else ""
    return f"no column {name}; it has {', '.join(names)}.{hint}"


def _is_parquet(uri: str, storage: StorageSettings) -> bool:
    """By name, and by looking: folders and globs hold Parquet, text files are named otherwise."""
    if uri.endswith("/") or "*" in uri or format_of(uri) == "parquet":
        return True
    try:
        filesystem, path = fsspec.core.url_to_fs(uri, **fsspec_options(uri, storage))
    except (ImportError, ValueError) as error:  # an unknown protocol, or its package is not installed
        raise InputError(f"{uri} cannot be opened: {error}") from error
    with storage_errors(uri):
        return bool(filesystem.isdir(path))
