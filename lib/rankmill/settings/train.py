"""Settings of `rankmill train` and of the builder of its input."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from rankmill.settings.load import CommandSettings


class TrainSettings(CommandSettings):
    """Train a cross-encoder on lists of candidates with labels or teacher scores."""

    input: list[Path] = Field(
        min_length=1, description="Parquet files or folders with training lists: pairs or nested."
    )
    output: Path = Field(description="Folder for the checkpoint and the trained model (OUTPUT/model).")
    body: str = Field(description="Local folder or hub id of the model to start from; a bi-encoder's body is fine.")

    seed: int = Field(default=0, ge=0, description="Seed of the order of the lists, the new weights and dropout.")
    steps: Annotated[int, Field(ge=1)] | None = Field(
        default=None, description="Optimiser steps; default: one pass over the lists."
    )
    lists_per_step: int = Field(default=8, ge=1, description="Lists whose losses are averaged for one step.")
    max_length: int = Field(default=256, ge=16, description="Most tokens per pair in training.")
    min_length: Annotated[int, Field(ge=16)] | None = Field(
        default=None,
        description="With it, every step draws its limit, log-uniform from this to --max-length: cheaper, sturdier.",
    )
    tokens_per_batch: int = Field(
        default=2048, ge=64, description="Most tokens, padding included, in one forward pass."
    )

    learning_rate: float = Field(default=1.5e-4, gt=0, description="Peak rate of AdamW.")
    warmup_steps: int = Field(default=60, ge=0, description="Steps in which the rate rises; then it stays at its peak.")
    decay: float = Field(
        default=0.3, ge=0, le=1, description="Share of the steps, the last ones, in which the rate falls to 0."
    )
    weight_decay: float = Field(default=0.01, ge=0, description="AdamW weight decay of matrices.")
    dropout: float = Field(default=0.0, ge=0, lt=1, description="Dropout in the body and before the head.")
    freeze_embeddings: bool = Field(default=False, description="Leave the word embeddings as they are.")

    temperature: float = Field(
        default=0.1,
        gt=0,
        description="Scale of the targets: a difference of one temperature is a logit difference of 1.",
    )
    centre: float = Field(default=0.5, description="The target that should get logit 0 (score one half).")
    label_bonus: float = Field(default=0.0, ge=0, description="Added to the teacher's score, times the label.")
    pointwise_weight: float = Field(
        default=2.0, ge=0, description="Weight of the pointwise loss beside the listwise one."
    )

    bf16: bool = Field(default=False, description="bfloat16 autocast in training.")
    device: Literal["auto", "cpu", "cuda"] = Field(default="auto", description="Where to compute.")
    threads: Annotated[int, Field(ge=1)] | None = Field(
        default=None, description="CPU threads; default: torch's choice."
    )
    checkpoint_seconds: float = Field(default=300.0, ge=0, description="Least time between two checkpoints.")
    int8: bool = Field(
        default=False, description="Store the trained model as int8 rows with scales (a quarter of the size)."
    )

    evaluate: list[Path] = Field(
        default=[],
        description="Collections in BEIR layout with a run.*.trec, reranked at the end as jobs/measure.py would.",
    )
    as_json: bool = Field(default=False, alias="json", description="Print the summary as JSON on stdout, last.")

    @model_validator(mode="after")
    def _lengths_agree(self) -> Self:
        if self.min_length is not None and self.min_length > self.max_length:
            raise ValueError(f"--min-length {self.min_length} is above --max-length {self.max_length}.")
        return self


class TrainingListsSettings(CommandSettings):
    """Build training lists from collections and docstrings.

    Never give it a collection's test queries: whatever goes in here has been trained on.
    """

    output: Path = Field(description="The Parquet file to write.")
    bi_encoder: Path = Field(description="Folder of the bi-encoder that chooses candidates and teaches.")
    labelled: list[Path] = Field(
        default=[],
        description="Collections whose judged queries are used (queries.train.jsonl, qrels.train.tsv where present).",
    )
    passages: list[Path] = Field(
        default=[], description="Collections of which only the corpus is used: queries are made from its texts."
    )
    packages: list[str] = Field(
        default=[], description="Installed, permissively licensed distributions whose docstrings are used."
    )

    queries_per_judgement: int = Field(
        default=2, ge=1, description="Lists per judged training query, each with other candidates."
    )
    passage_queries: int = Field(
        default=4000, ge=0, description="Queries made per passage collection (at most 3 per passage)."
    )
    docstring_queries: int = Field(default=4000, ge=0, description="Queries made from docstrings (one per docstring).")
    docstrings_per_package: int = Field(default=600, ge=1, description="Most docstrings taken from one package.")
    dev_queries: int = Field(
        default=100,
        ge=0,
        description="Judged queries per collection held out as split `dev`, with whole groups of documents.",
    )
    dev_groups: str = Field(
        default=r"^.*$", description="Pattern of a document id; documents with the same match are held out together."
    )
    dev_candidates: int = Field(default=30, ge=2, description="BM25 candidates of a dev list.")
    bm25_weight: float = Field(default=0.3, ge=0, description="Weight of the BM25 fraction beside the cosine.")
    seed: int = Field(default=0, ge=0, description="Seed of every choice.")


class MeasureSettings(CommandSettings):
    """Measure a model on collections in BEIR layout that hold a first-stage run (run.*.trec)."""

    collections: list[Path] = Field(min_length=1, description="Folders with corpus, queries, qrels and one run.*.trec.")
    model: str = Field(default="builtin", description="`builtin`, a local folder or a hub id.")
    depth: int = Field(default=100, ge=1, description="Documents reranked per query.")
    max_length: Annotated[int, Field(ge=8)] | None = Field(
        default=None, description="Most tokens per pair; default: the model's own limit."
    )
    precision: Literal["float32", "bfloat16", "float16"] = Field(default="float32", description="Of the model's body.")
    threads: Annotated[int, Field(ge=1)] | None = Field(default=None, description="CPU threads.")


class CandidatesSettings(CommandSettings):
    """Write the first-stage runs (run.*.trec) of collections in BEIR layout as candidates in Parquet."""

    collections: list[Path] = Field(min_length=1, description="Folders with corpus, queries, qrels and one run.*.trec.")
    output: Path = Field(description="The Parquet file to write.")
    queries: Annotated[int, Field(ge=1)] | None = Field(
        default=None, description="The first N judged queries of each collection; default: all."
    )
    depth: int = Field(default=100, ge=1, description="Documents per query.")
