"""Which columns a candidate table has, what each is for, and the canonical form every reader turns them into.

A `Layout` is decided once, at plan time, from the schemas of all files; workers read with it and decide nothing. The
canonical table has one row per pair, in input order:

    source: int32          index of the input file
    row: int64             row of the file (nested input: row of the query; JSONL: line), counted from 0
    query_id, doc_id       string or the integer type of the input
    query, document        large_string
    retrieval_score        float64, where the input has one
    keep:NAME              columns asked for with --keep, of their own types
    reason, detail         string, null for a good row; why a row cannot be scored
"""

import difflib
import string
from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.types as pt

from rankmill.settings.rerank import Columns

KEEP = "keep:"
"""Prefix of kept columns in the canonical table, so that they clash with nothing."""

OUTPUT_COLUMNS = ("query_id", "doc_id", "rank", "score", "logit", "retrieval_score", "retrieval_rank", "truncated")


@dataclass(frozen=True, slots=True)
class Kept:
    """A column carried from input to output."""

    name: str
    type: pa.DataType
    per_candidate: bool
    """Nested input: whether it is a field of the candidates (else a column of the query)."""


@dataclass(frozen=True, slots=True)
class TemplatePart:
    """Literal text followed by a column (or by nothing, at the end)."""

    literal: str
    column: str | None


@dataclass(frozen=True, slots=True)
class Layout:
    """How to read the input; equal for all its files."""

    nested: bool
    columns: Columns
    query_id_type: pa.DataType
    doc_id_type: pa.DataType
    title: bool
    retrieval_score: bool
    keep: tuple[Kept, ...]
    template: tuple[TemplatePart, ...]
    """Document text; empty: title and text, joined by a space where there is a title."""

    @property
    def document_columns(self) -> tuple[str, ...]:
        """Input columns that the document's text is made of."""
        if self.template:
            return tuple(dict.fromkeys(part.column for part in self.template if part.column))
        return (self.columns.title, self.columns.text) if self.title else (self.columns.text,)

    def canonical_schema(self) -> pa.Schema:
        """Schema of the canonical table."""
        fields = [
            ("source", pa.int32()),
            ("row", pa.int64()),
            ("query_id", self.query_id_type),
            ("query", pa.large_string()),
            ("doc_id", self.doc_id_type),
            ("document", pa.large_string()),
        ]
        if self.retrieval_score:
            fields.append(("retrieval_score", pa.float64()))
        fields += [(KEEP + kept.name, kept.type) for kept in self.keep]
        return pa.schema([*fields, ("reason", pa.string()), ("detail", pa.string())])


def layout_of(
    schema: pa.Schema, columns: Columns, keep: Sequence[str], template: str | None
) -> tuple[Layout | None, list[str]]:
    """Decide how to read a file with this schema.

    Returns:
        The layout and no problems, or None and one sentence per problem.
    """
    duplicates = sorted({name for name in schema.names if schema.names.count(name) > 1})
    if duplicates:
        return None, [f"the column {name} is there more than once" for name in duplicates]
    nested = columns.candidates in schema.names
    problems: list[str] = []
    candidate_fields: dict[str, pa.DataType] = {}
    top = {field.name: field.type for field in schema}
    if nested:
        candidates = top[columns.candidates]
        if not (_is_list(candidates) and pt.is_struct(candidates.value_type)):
            return None, [
                f"{columns.candidates} is {candidates}; nested input needs a list of structs with "
                f"{columns.doc_id} and {columns.text}"
            ]
        candidate_fields = {field.name: field.type for field in candidates.value_type}
    pair_fields = candidate_fields if nested else top

    def need(name: str, part: str, fields: dict[str, pa.DataType]) -> pa.DataType | None:
        if name in fields:
            return fields[name]
        near = difflib.get_close_matches(name, fields, n=1, cutoff=0.5)
        hint = f"; did you mean {near[0]}? Then say --columns.{part.replace('_', '-')} {near[0]}" if near else ""
        where = f" in {columns.candidates}" if fields is candidate_fields else ""
        problems.append(f"no column {name}{where} (it has {', '.join(fields) or 'none'}){hint}")
        return None

    query_id = need(columns.query_id, "query_id", top)
    query = need(columns.query, "query", top)
    doc_id = need(columns.doc_id, "doc_id", pair_fields)
    parts, template_problems = parse_template(template)
    problems += template_problems
    texts = [part.column for part in parts if part.column] if parts else [columns.text]
    text_types = [(name, need(name, "text", pair_fields)) for name in dict.fromkeys(texts)]
    for name, kind in [(columns.query, query), *text_types]:
        if kind is not None and not _is_text(kind):
            problems.append(f"{name} is {kind}; text must be a string column (nothing is cast in silence)")
    for name, kind in [(columns.query_id, query_id), (columns.doc_id, doc_id)]:
        if kind is not None and not (_is_text(kind) or pt.is_integer(kind)):
            problems.append(f"{name} is {kind}; ids must be strings or integers")
    title = columns.title in pair_fields and not parts
    if title and not _is_text(pair_fields[columns.title]):
        problems.append(f"{columns.title} is {pair_fields[columns.title]}; text must be a string column")
    score = pair_fields.get(columns.retrieval_score)
    if score is not None and not (pt.is_floating(score) or pt.is_integer(score)):
        problems.append(f"{columns.retrieval_score} is {score}; it must be a number")
    kept: list[Kept] = []
    for name in keep:
        if name in pair_fields or name in top:
            kind = pair_fields.get(name, top.get(name))
            kept.append(Kept(name, stored_type(kind), per_candidate=nested and name in candidate_fields))
            if not _is_plain(kind):
                problems.append(f"--keep {name}: {kind} cannot be carried; only plain types, lists and structs of them")
        else:
            need(name, "…", pair_fields | top)
    if problems or query_id is None or doc_id is None:
        return None, problems
    return (
        Layout(
            nested=nested,
            columns=columns,
            query_id_type=stored_type(query_id),
            doc_id_type=stored_type(doc_id),
            title=title,
            retrieval_score=score is not None,
            keep=tuple(kept),
            template=parts,
        ),
        [],
    )


def differences(first: Layout, other: Layout) -> list[str]:
    """Say how two files' layouts differ; empty when they can be read as one input."""
    found = []
    if first.nested != other.nested:
        found.append("one row per query here, one row per pair there")
    for part in ("query_id_type", "doc_id_type"):
        if getattr(first, part) != getattr(other, part):
            found.append(f"{part.removesuffix('_type')} is {getattr(first, part)} here, {getattr(other, part)} there")
    for part in ("title", "retrieval_score"):
        if getattr(first, part) != getattr(other, part):
            has, lacks = ("here", "there") if getattr(first, part) else ("there", "here")
            found.append(f"{getattr(first.columns, part)} is {has} but not {lacks}")
    found += [
        f"{a.name} is {a.type} here, {b.type} there" for a, b in zip(first.keep, other.keep, strict=True) if a != b
    ]
    return found


def parse_template(template: str | None) -> tuple[tuple[TemplatePart, ...], list[str]]:
    """Split `'{title}: {body}'` into literals and columns."""
    if template is None:
        return (), []
    try:
        pieces = list(string.Formatter().parse(template))
    except ValueError as error:
        return (), [f"--document-template {template!r}: {error}"]
    parts = tuple(TemplatePart(literal, column) for literal, column, _, _ in pieces)
    odd = [column for _, column, spec, conversion in pieces if column == "" or spec or conversion]
    if odd or not any(part.column for part in parts):
        return (), [
            f"--document-template {template!r}: write plain column names in braces, such as '{{title}} {{text}}'"
        ]
    return parts, []


def stored_type(kind: pa.DataType) -> pa.DataType:
    """The type a column has from the reader on: every spelling of text becomes string, integers stay what they are."""
    return pa.string() if _is_text(kind) else kind


def _is_text(kind: pa.DataType) -> bool:
    if pt.is_dictionary(kind):
        return _is_text(kind.value_type)
    return bool(pt.is_string(kind) or pt.is_large_string(kind) or pt.is_string_view(kind))


def _is_list(kind: pa.DataType) -> bool:
    return bool(pt.is_list(kind) or pt.is_large_list(kind) or pt.is_fixed_size_list(kind))


def _is_plain(kind: pa.DataType) -> bool:
    """No extension types (reading them can run code from the file), nothing exotic."""
    if isinstance(kind, pa.BaseExtensionType):
        return False
    if _is_list(kind):
        return _is_plain(kind.value_type)
    if pt.is_struct(kind):
        return all(_is_plain(field.type) for field in kind)
    if pt.is_dictionary(kind):
        return _is_plain(kind.value_type)
    return bool(
        pt.is_primitive(kind) or _is_text(kind) or pt.is_binary(kind) or pt.is_large_binary(kind) or pt.is_decimal(kind)
    )
