"""What an index was made of: written with its first document, read by whoever searches it or goes on building it."""

import json
from dataclasses import asdict, dataclass, fields
from typing import Any

from rankmill.errors import InputError, OutputConflictError, UsageError

FORMAT = 1
"""Of an index's columns and of this manifest; raised when an older one can no longer be read."""


@dataclass(frozen=True, slots=True)
class EmbedderInfo:
    """The model that made an index's vectors."""

    model: str
    """As `--model` had it."""
    revision: str | None
    """Commit of a hub model."""
    fingerprint: str
    """Equal fingerprints give equal vectors, up to the rounding of the device."""
    dimension: int
    """Numbers of a vector."""
    precision: str
    max_length: int
    """Tokens of a document that are read."""
    max_query_tokens: int


@dataclass(frozen=True, slots=True)
class Manifest:
    """What makes two indexes the same; a build that was killed goes on only if all of it still holds."""

    corpus: str
    """As `--corpus` had it, made absolute."""
    files: str
    """Digest of the corpus' files with their sizes and versions, 64 hexadecimal digits."""
    columns: tuple[str, str, str]
    """Of the corpus: the id, the title (empty where there is none) and the text of a document."""
    keep: tuple[tuple[str, str], ...]
    """Columns carried along, and their types."""
    language: str
    """Whose words the full-text search stems, or `none`."""
    embedder: EmbedderInfo | None
    format: int = FORMAT

    def to_json(self) -> str:
        """One line."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str | bytes | None, uri: str) -> "Manifest":
        """Read it back.

        Args:
            text: as `to_json` wrote it, or None where there was none.
            uri: of the index, for messages.

        Raises:
            InputError: it is no manifest, or that of a later version.
        """
        try:
            values: dict[str, Any] = json.loads(text or "")
            if values["format"] == FORMAT:
                embedder = values.pop("embedder")
                columns = tuple(values.pop("columns"))
                keep = tuple((name, kind) for name, kind in values.pop("keep"))
                return cls(columns=columns, keep=keep, embedder=embedder and EmbedderInfo(**embedder), **values)
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"{uri} holds a table that `rankmill index` did not make; name another place.") from error
        raise InputError(
            f"{uri} is an index of format {values['format']}; this version reads format {FORMAT}. Build it again."
        )


def refuse_other(found: Manifest, wanted: Manifest, uri: str) -> None:
    """Refuse to go on with an index of something else.

    Raises:
        OutputConflictError: naming what differs.
    """
    differing = [each.name for each in fields(found) if getattr(found, each.name) != getattr(wanted, each.name)]
    if differing:
        raise OutputConflictError(
            f"{uri} already holds an index that differs in: {', '.join(differing)}. Give the flags and the corpus it "
            "was begun with, or another --index."
        )


def refuse_other_model(found: Manifest, fingerprint: str, uri: str) -> None:
    """Refuse to search vectors of one model with queries of another.

    Raises:
        UsageError: naming both fingerprints.
    """
    if found.embedder is None:
        raise UsageError(f"The index {uri} holds no vectors; build it with --model, or search it without one.")
    if found.embedder.fingerprint != fingerprint:
        raise UsageError(
            f"The vectors of the index {uri} are those of the model {found.embedder.model!r} with the fingerprint "
            f"{found.embedder.fingerprint[:12]}, but the model at hand has {fingerprint[:12]}: their inner products "
            "mean nothing. Load that model with the same limits and precision, or build the index again."
        )
