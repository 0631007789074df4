"""Settings of `rankmill score`."""

from typing import Literal, Self

from pydantic import Field, model_validator

from rankmill.settings.scorer import ScorerSettings


class ScoreSettings(ScorerSettings):
    """Score pairs, or rank the documents of one query, on this machine: one process, neither Ray nor a server.

    Pairs are JSONL (query, text, and where you have them query_id, doc_id, title) or TSV (query, tab, text); rows of a
    query lie together. With --query TEXT, documents come one per line, or as JSONL with text. The result is JSONL: per
    query, best first: rank, score, logit, truncated. On a terminal it is a table.
    """

    input: str | None = Field(None, description="pairs: file, local path or URI, or - for standard input (default: -)")
    query: str | None = Field(None, description="rank --documents for this query")
    documents: str | None = Field(None, description="documents of --query: file, URI, or - for standard input")
    input_format: Literal["auto", "jsonl", "text"] = Field(
        "auto", description="JSONL, or text: one document per line, or query, tab, text (default: by name and content)"
    )
    top_k: int | None = Field(None, ge=1, description="keep the best K documents of each query (default: all)")
    with_text: bool = Field(False, description="repeat the document's text in the output")
    activation: Literal["model", "raw", "sigmoid"] = Field("model", description="what turns logits into scores")
    as_json: bool = Field(False, alias="json", description="print JSONL to a terminal too, not a table")
    quiet: bool = Field(False, description="no progress and no logs")

    @model_validator(mode="after")
    def _one_input(self) -> Self:
        if (self.query is None) != (self.documents is None):
            given, lacking = ("--documents", "--query") if self.query is None else ("--query", "--documents")
            raise ValueError(f"{given} was given without {lacking}: a query is ranked with its documents.")
        if self.query is not None and self.input is not None:
            raise ValueError("Give pairs with --input, or one --query with its --documents, not both.")
        return self
