"""Turns batches as they lie in files into the canonical table, marking rows that cannot be scored.

Nothing is dropped here: a row that cannot be scored keeps its place, with a reason.
"""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt
from numpy.typing import NDArray

from rankmill.tables.schema import KEEP, Layout, TemplatePart
from rankmill.tables.text import TABLE_BYTES, emptied, expanded_bytes, read_text

REASONS = {
    "null_query_id": "the query id is null",
    "null_query": "the query text is null",
    "null_doc_id": "the document id is null",
    "null_text": "the document text is null",
    "no_candidates": "the list of candidates is null or empty",
    "invalid_unicode": "the text is not valid Unicode (UTF-8)",
    "text_too_large": "a value is larger than --max-text-bytes, a line of text than four of those (64 MiB at least), "
    "or the texts of the shard are too large together",
    "unreadable_file": "the file cannot be read at all, and --bad-files reject lets the others go on",
    "damaged_rows": "the file is damaged where these rows are, and --bad-files reject lets the others go on",
    "invalid_json": "the line is not a JSON object",
    "invalid_line": "the line is not `query_id Q0 doc_id rank score tag`",
    "unknown_query": "--queries has no query of this id",
    "unknown_document": "--corpus has no document of this id",
    "wrong_type": "a value has another type than the column",
    "non_finite_score": "the model's logit is NaN or infinite",
    "out_of_memory": "the pair, or its list, does not fit into memory, not even alone",
    "model_error": "the model raises an error for this pair, also when it is alone",
    "worker_crash": "the process that works on this pair dies of it, also when it is alone",
    "no_answer": "the model gives no answer for this pair within --forward-timeout, also when it is alone",
}
"""Why a row can be rejected; the closed list that `_rejected/` draws from."""


TOO_LARGE_TOGETHER = (
    f"the texts of its shard have more than {TABLE_BYTES:,} bytes together; cut smaller shards (--shard-pairs)"
)

Problem = tuple[str, str] | None
"""Why a row cannot be scored: one of `REASONS` and a sentence."""


def pairs_of(candidates: pa.Array) -> NDArray[np.int64]:
    """Pairs that each list of candidates makes; a null or empty one makes one, so that its query leaves a trace."""
    lengths = pc.fill_null(pc.list_value_length(candidates), 0).to_numpy(zero_copy_only=False)
    pairs: NDArray[np.int64] = np.maximum(lengths.astype(np.int64), 1)
    return pairs


def from_batch(batch: pa.RecordBatch, layout: Layout, source: int, first_row: int) -> pa.Table:
    """Bring a batch of an input file into canonical form.

    Args:
        batch: consecutive rows of one file, with at least the columns the layout names but for optional ones.
        layout: how to read it.
        source: index of the file.
        first_row: row number, in the file, of the batch's first row.
    """
    rows = np.arange(first_row, first_row + len(batch), dtype=np.int64)
    top = pa.Table.from_batches([batch]).combine_chunks()
    if not layout.nested:
        return canonical(top, top, rows, layout, source)
    candidates = top.column(layout.columns.candidates).combine_chunks()
    parents = np.repeat(np.arange(len(batch)), pairs_of(candidates))
    structs = pc.list_flatten(candidates)
    problems: list[Problem] | None = None
    if len(structs) < len(parents):
        empty = pc.equal(pc.fill_null(pc.list_value_length(candidates), 0), 0).to_numpy(zero_copy_only=False)[parents]
        structs = structs.take(pa.array(np.cumsum(~empty) - 1, mask=empty))
        problems = [("no_candidates", REASONS["no_candidates"]) if none else None for none in empty]
    pairs = pa.table({field.name: pc.struct_field(structs, field.name) for field in structs.type})
    queries = top.drop_columns([layout.columns.candidates]).take(parents)
    return canonical(queries, pairs, rows[parents], layout, source, problems)


def split_rejected(table: pa.Table) -> tuple[pa.Table, pa.Table]:
    """Split a canonical table into rows that can be scored and rows that cannot, each in input order."""
    if table.column("reason").null_count == len(table):
        return table, table.slice(0, 0)
    good = table.column("reason").is_null()
    return table.filter(good), table.filter(pc.invert(good))


def unread(layout: Layout, source: int, start: int, stop: int, reason: str, detail: str) -> pa.Table:
    """Rows of which nothing is known but that they are there, in canonical form; `start` to `stop` (exclusive)."""
    schema = layout.canonical_schema()
    columns = {field.name: pa.nulls(stop - start, field.type) for field in schema}
    columns["source"] = pa.array(np.full(stop - start, source, dtype=np.int32))
    columns["row"] = pa.array(np.arange(start, stop, dtype=np.int64))
    columns |= {"reason": pa.repeat(reason, stop - start), "detail": pa.repeat(detail, stop - start)}
    return pa.table(columns, schema=schema)


def withhold(table: pa.Table, room: int) -> tuple[pa.Table, int]:
    """Reject the rows of a canonical table whose texts, with those before them, take more than `room` bytes.

    Returns:
        The table, without the texts of those rows, and the bytes that the others take.
    """
    sizes = [pc.fill_null(pc.binary_length(table.column(name)), 0).to_numpy() for name in ("query", "document")]
    totals = np.cumsum(np.sum(sizes, axis=0))
    within = int(np.searchsorted(totals, room, side="right"))
    used = int(totals[within - 1]) if within else 0
    if within == len(table):
        return table, used
    over = pa.array(np.arange(len(table)) >= within)
    table = mark(table, over, "text_too_large", TOO_LARGE_TOGETHER)
    for name in ("query", "document"):
        column = emptied(table.column(name).combine_chunks(), over)
        table = table.set_column(table.schema.get_field_index(name), name, column)
    return table, used


def mark(table: pa.Table, bad: pa.Array, reason: str, detail: str | None = None) -> pa.Table:
    """Give `reason` to the rows where `bad` is true and that have no reason yet."""
    old = table.column("reason").combine_chunks()
    fresh = pc.and_(pc.fill_null(bad, False), old.is_null())
    text = detail or REASONS[reason]
    table = table.set_column(table.schema.get_field_index("reason"), "reason", pc.if_else(fresh, reason, old))
    details = table.column("detail").combine_chunks()
    return table.set_column(table.schema.get_field_index("detail"), "detail", pc.if_else(fresh, text, details))


def canonical(
    queries: pa.Table,
    pairs: pa.Table,
    rows: NDArray[np.int64],
    layout: Layout,
    source: int,
    problems: Sequence[Problem] | None = None,
) -> pa.Table:
    """Make the canonical table from columns that lie side by side.

    Args:
        queries: query and its id, and what is kept of the query, for each pair.
        pairs: candidate for each pair; the same table as `queries` where the input has one row per pair.
        rows: row of the file that each pair comes from; shape (pairs,).
        layout: what the columns are.
        source: index of the file.
        problems: why a pair cannot be scored, where that is known already; wins over what is found here.
    """
    names = layout.columns
    schema = layout.canonical_schema()
    limit = layout.max_text_bytes
    faults: list[tuple[str, str, pa.Array]] = []  # reason, detail, where

    def text(table: pa.Table, name: str) -> pa.Array:
        found = read_text(_column(table, name), limit, withheld)
        if found.broken is not None:
            faults.append(("invalid_unicode", f"{name} is not valid Unicode (UTF-8)", found.broken))
        if found.too_large is not None:
            detail = f"{name} has more than the {limit:,} bytes that --max-text-bytes allows"
            faults.append(("text_too_large", detail, found.too_large))
        return found.values

    def identifier(table: pa.Table, name: str, kind: pa.DataType) -> pa.Array:
        return _column(table, name) if pa.types.is_integer(kind) else text(table, name)

    pairs = _with_absent_columns(pairs, layout)
    withheld = _beyond_memory(queries, pairs, layout)
    if withheld is not None:
        faults.append(("text_too_large", TOO_LARGE_TOGETHER, withheld))
    known = problems or [None] * len(rows)
    documents = {name: text(pairs, name) for name in layout.document_columns}
    columns: dict[str, pa.Array] = {
        "source": pa.array(np.full(len(rows), source, dtype=np.int32)),
        "row": pa.array(rows),
        "query_id": identifier(queries, names.query_id, layout.query_id_type),
        "query": text(queries, names.query),
        "doc_id": identifier(pairs, names.doc_id, layout.doc_id_type),
        "document": document_text(documents, layout),
    }
    if layout.retrieval_score:  # whole numbers above 2^53 are rounded
        columns["retrieval_score"] = pairs.column(names.retrieval_score).cast(pa.float64(), safe=False)
    for kept in layout.keep:
        column = _column(pairs if kept.per_candidate else queries, kept.name)
        columns[KEEP + kept.name] = (
            text(pa.table({kept.name: column}), kept.name) if kept.type == pa.string() else column
        )
    columns["reason"] = pa.array([problem and problem[0] for problem in known], pa.string())
    columns["detail"] = pa.array([problem and problem[1] for problem in known], pa.string())
    table = pa.table({name: column.cast(schema.field(name).type) for name, column in columns.items()})
    for reason, detail, bad in faults:
        table = mark(table, bad, reason, detail)
    for name in ("query_id", "query", "doc_id"):
        table = mark(table, columns[name].is_null(), f"null_{name}")
    return mark(table, columns["document"].is_null(), "null_text")


def _column(table: pa.Table, name: str) -> pa.Array:
    return table.column(name).combine_chunks()


def _beyond_memory(queries: pa.Table, pairs: pa.Table, layout: Layout) -> pa.Array | None:
    """The pairs whose texts, with those before them, would take more than `TABLE_BYTES`; None where all are within.

    Only text that is not expanded yet can be so much: a batch has few rows, but a row of nested input many candidates.
    """
    used = [(queries, layout.columns.query), *((pairs, name) for name in layout.document_columns)]
    used += [(pairs if kept.per_candidate else queries, kept.name) for kept in layout.keep if kept.type == pa.string()]
    columns = [_column(table, name) for table, name in used]
    sizes = [expanded_bytes(column, layout.max_text_bytes) for column in columns if pt.is_dictionary(column.type)]
    total = np.cumsum(np.sum(sizes, axis=0)) if sizes else np.zeros(0)
    return pa.array(total > TABLE_BYTES) if len(total) and total[-1] > TABLE_BYTES else None


def _with_absent_columns(pairs: pa.Table, layout: Layout) -> pa.Table:
    """The pairs with nulls in the optional columns that other files of the input have and this one has not."""
    wanted = {layout.columns.title: layout.title, layout.columns.retrieval_score: layout.retrieval_score}
    for name, is_wanted in wanted.items():
        if is_wanted and name not in pairs.column_names:
            pairs = pairs.append_column(name, pa.nulls(len(pairs)))
    return pairs


def document_text(columns: dict[str, pa.Array], layout: Layout) -> pa.Array:
    """Make the text that is scored; null where the text column is null.

    Without a template: `title + " " + text` where there is a title that is not empty, else the text alone.
    """
    if layout.template:
        return _render(layout.template, columns)
    body = columns[layout.columns.text]
    if not layout.title:
        return body
    title = pc.fill_null(columns[layout.columns.title], "")
    between = pc.if_else(pc.equal(title, ""), pa.scalar("", pa.large_string()), pa.scalar(" ", pa.large_string()))
    return pc.binary_join_element_wise(title, body, between)


def _render(template: tuple[TemplatePart, ...], columns: dict[str, pa.Array]) -> pa.Array:
    """Fill the template; a null column leaves its place empty, and a row where all are null has no text."""
    length = len(next(iter(columns.values())))
    pieces: list[pa.Array] = []
    for part in template:
        pieces.append(pa.array([part.literal], pa.large_string()).take(pa.array(np.zeros(length, dtype=np.int64))))
        if part.column is not None:
            pieces.append(pc.fill_null(columns[part.column], ""))
    text = pc.binary_join_element_wise(*pieces, pa.scalar("", pa.large_string()))
    missing = [column.is_null() for column in columns.values()]
    all_missing = missing[0]
    for column in missing[1:]:
        all_missing = pc.and_(all_missing, column)
    return pc.if_else(all_missing, pa.scalar(None, pa.large_string()), text)
