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
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import pyarrow as pa
import pyarrow.types as pt

from rankmill.settings.rerank import Columns

KEEP = "keep:"
"""Prefix of kept columns in the canonical table, so that they clash with nothing."""

BEST_CHUNK = ("best_chunk_start", "best_chunk_end")
"""Characters of the document that the best chunk covers: columns of the output with --long-documents chunk."""

_EXTENSION_NAME = b"ARROW:extension:name"
"""Key, in a field's metadata, of an extension type that nobody registered in this process."""

OUTPUT_COLUMNS = (
    *("query_id", "doc_id", "rank", "score", "logit", "retrieval_score", "retrieval_rank", "truncated"),
    *BEST_CHUNK,
)


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
    max_text_bytes: int = 16 << 20
    """Bytes that a query, a text, a title, an id or a kept text may have; a row with a longer one is rejected."""

    @property
    def document_columns(self) -> tuple[str, ...]:
        """Input columns that the document's text is made of."""
        if self.template:
            return tuple(dict.fromkeys(part.column for part in self.template if part.column))
        return (self.columns.title, self.columns.text) if self.title else (self.columns.text,)

    def with_optional_columns(self) -> "Layout":
        """The same, reading the optional columns whether or not they were seen (JSONL: they may come late)."""
        title = not self.template and self.columns.title != self.columns.text
        return replace(self, title=title, retrieval_score=True)

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


def layout_of(  # noqa: PLR0911 - a return per stage of checks
    schema: pa.Schema, columns: Columns, keep: Sequence[str], template: str | None
) -> tuple[Layout | None, list[str]]:
    """Decide how to read a file with this schema.

    Returns:
        The layout and no problems, or None and one sentence per problem.
    """
    duplicates = _duplicates(schema.names)
    if duplicates:
        return None, [f"the column {name} is there more than once" for name in duplicates]
    top = {field.name: field.type for field in schema}
    nested = columns.candidates in top
    if nested and not _is_list_of_structs(top[columns.candidates]):
        wanted = f"nested input needs a list of structs with {columns.doc_id} and {columns.text}"
        return None, [f"{columns.candidates} is {top[columns.candidates]}; {wanted}"]
    fields = list(top[columns.candidates].value_type) if nested else []
    duplicates = _duplicates([field.name for field in fields])
    if duplicates:
        return None, [f"{columns.candidates} has the field {name} more than once" for name in duplicates]
    pairs = {field.name: field.type for field in fields} if nested else top
    parts, problems = parse_template(template)
    texts = [part.column for part in parts if part.column] if parts else [columns.text]
    problems += _missing([(columns.query_id, "query_id"), (columns.query, "query")], top, "")
    where = f" in {columns.candidates}" if nested else ""
    problems += _missing([(columns.doc_id, "doc_id"), *((name, "text") for name in dict.fromkeys(texts))], pairs, where)
    problems += _missing([(name, None) for name in keep], pairs | top, "")
    if problems:
        return None, problems
    used = {*columns.model_dump().values(), *texts, *keep}
    problems += [problem for field in schema if field.name in used for problem in _extensions(field)]
    if problems:
        return None, problems
    optional = [] if parts else [columns.title]
    problems += _wrong_text([(columns.query, top[columns.query]), *((name, pairs[name]) for name in texts)])
    problems += _wrong_text([(name, pairs[name]) for name in optional if name in pairs and not pt.is_null(pairs[name])])
    problems += _wrong_ids([(columns.query_id, top[columns.query_id]), (columns.doc_id, pairs[columns.doc_id])])
    score = pairs.get(columns.retrieval_score)
    if score is not None and not (pt.is_floating(score) or pt.is_integer(score) or pt.is_null(score)):
        problems.append(f"{columns.retrieval_score} is {score}; it must be a number")
    kept = [Kept(name, stored_type((pairs | top)[name]), per_candidate=nested and name in pairs) for name in keep]
    problems += [
        f"--keep {item.name}: {item.type} cannot be carried; only plain types, lists and structs of them"
        for item in kept
        if not _is_plain(item.type)
    ]
    if problems:
        return None, problems
    return Layout(
        nested=nested,
        columns=columns,
        query_id_type=stored_type(top[columns.query_id]),
        doc_id_type=stored_type(pairs[columns.doc_id]),
        title=columns.title in pairs and columns.title != columns.text and not parts,
        retrieval_score=score is not None,
        keep=tuple(kept),
        template=parts,
    ), []


def _missing(wanted: Sequence[tuple[str, str | None]], there: Mapping[str, pa.DataType], where: str) -> list[str]:
    """One sentence per column that is not there, with the nearest that is; parts are named by their flag."""
    problems = []
    for name, part in wanted:
        if name in there:
            continue
        same = [other for other in there if other.casefold() == name.casefold()]
        near = same or difflib.get_close_matches(name, there, n=1, cutoff=0.5)
        fix = f"--columns.{part.replace('_', '-')} {near[0]}" if near and part else "--keep with its name"
        hint = f"; did you mean {near[0]}? Then say {fix}" if near else ""
        problems.append(f"no column {name}{where} (it has {', '.join(there) or 'none'}){hint}")
    return problems


def _wrong_text(columns: Sequence[tuple[str, pa.DataType]]) -> list[str]:
    return [
        f"{name} is {kind}; text must be a string column (nothing is cast in silence)"
        for name, kind in dict(columns).items()
        if not _is_text(kind)
    ]


def _wrong_ids(columns: Sequence[tuple[str, pa.DataType]]) -> list[str]:
    return [
        f"{name} is {kind}; ids must be strings or integers"
        for name, kind in columns
        if not (_is_text(kind) or pt.is_integer(kind))
    ]


def differences(first: Layout, other: Layout) -> list[str]:
    """Say how the layout of a later file (there) differs from the first's (here); empty when both are one input."""
    found = []
    if first.nested != other.nested:
        one, many = ("query", "pair") if first.nested else ("pair", "query")
        found.append(f"one row per {one} here, one row per {many} there")
    found += [
        f"{part.removesuffix('_type')} is {getattr(other, part)} there, {getattr(first, part)} here"
        for part in ("query_id_type", "doc_id_type")
        if getattr(first, part) != getattr(other, part)
    ]
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


def _is_list_of_structs(kind: pa.DataType) -> bool:
    return _is_list(kind) and bool(pt.is_struct(kind.value_type))


def _is_list(kind: pa.DataType) -> bool:
    return bool(pt.is_list(kind) or pt.is_large_list(kind) or pt.is_fixed_size_list(kind))


def _duplicates(names: Sequence[str]) -> list[str]:
    return sorted(name for name, count in Counter(names).items() if count > 1)


def _extensions(field: pa.Field, path: str = "") -> list[str]:
    """One sentence per extension type in a column, whether or not this process knows the type.

    Any library that is imported may register one, and what it does with the bytes of a file is not ours to know: that
    of Ray for Python objects unpickles them, which runs whatever the writer of the file wants.
    """
    path = f"{path}.{field.name}" if path else field.name
    known = isinstance(field.type, pa.BaseExtensionType)
    if known or _EXTENSION_NAME in (field.metadata or {}):
        name = field.type.extension_name if known else field.metadata[_EXTENSION_NAME].decode(errors="replace")
        return [f"{path} is of the extension type {name}, and reading one can run code: store it as a plain column"]
    inner = field.type.value_type if pt.is_dictionary(field.type) else field.type
    children = [inner.field(index) for index in range(inner.num_fields)]
    return [problem for child in children for problem in _extensions(child, path)]


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
