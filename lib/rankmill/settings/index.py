"""Settings of `rankmill index`."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from rankmill.settings.load import CommandSettings
from rankmill.settings.rerank import Names
from rankmill.settings.storage import StorageSettings

Language = Literal[
    "none", "Arabic", "Danish", "Dutch", "English", "Finnish", "French", "German", "Greek", "Hungarian", "Italian",
    "Norwegian", "Portuguese", "Romanian", "Russian", "Spanish", "Swedish", "Tamil", "Turkish",
]  # fmt: skip


class CorpusColumns(BaseModel):
    """Which column of the corpus plays which part."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    doc_id: str | None = Field(None, description="id of the document, a string or an integer (default: doc_id or _id)")
    title: str = Field("title", description="title of the document (optional column)")
    text: str = Field("text", description="text of the document")


class IndexSettings(CommandSettings):
    """Build a searchable index of a corpus, for two-stage search: full text always, vectors with --model.

    CORPUS is Parquet or JSONL(.gz), BEIR's included: a file, a folder or a glob, local or any fsspec URI. INDEX is a
    folder for LanceDB, local or s3://, or a Milvus: http://HOST:PORT/NAME (MILVUS_TOKEN signs), or FILE.db for Milvus
    Lite. The same command, run again, continues where it stopped; an index that is not whole is never searched.
    """

    corpus: str = Field(description="file, folder or glob of documents; local path or URI")
    index: str = Field(description="folder for the index: local path, s3://bucket/folder, or a Milvus")
    model: str | None = Field(
        None, description="bi-encoder for vectors: a hub id or a local folder (default: full-text search only)"
    )
    revision: str | None = Field(None, description="branch, tag or commit of a hub model")
    precision: Literal["float32", "bfloat16", "float16"] = Field(
        "float32", description="of the model's body; queries need the same, float32 is there on every machine"
    )
    max_length: int | None = Field(None, ge=8, description="tokens of a document at most (default: the model's limit)")
    columns: CorpusColumns = Field(default_factory=CorpusColumns)
    keep: Names = Field((), description="further columns to store, to filter by and to give back, comma separated")
    language: Language = Field("English", description="whose words are stemmed for full-text search")
    batch_documents: int = Field(10_000, ge=1, description="documents per commit: what a killed build loses at most")
    storage: StorageSettings = Field(default_factory=StorageSettings)
    as_json: bool = Field(False, alias="json", description="print a machine-readable summary to stdout, last")
    quiet: bool = Field(False, description="no progress and no logs")
