"""Long documents in chunks: every token is read, and the best chunk decides."""

import pickle
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file

from rankmill.errors import NonFiniteScoreError, UsageError
from rankmill.scoring.chunks import chunk_starts, score
from rankmill.scoring.load import check_model, load_encoder, load_scorer
from rankmill.scoring.options import ScorerOptions
from rankmill.scoring.tokens import PairEncoder
from rankmill.types import Chunks, EncodedPairs
from tests.scoring.reference import load_reference
from tests.tiny_models import CORPUS, FAMILIES, save_tiny_model

SLOW_MACHINE = settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
LONG = " ".join(CORPUS)
QUERIES = ("how do I sort a list", "", "Straße nach München? " * 20)
TEXTS = (LONG, "", "short", LONG[::-1], LONG[40:200])


def options_for(folder: Path, **options: Any) -> ScorerOptions:
    defaults: dict[str, Any] = {"model": str(folder), "max_length": 40, "long_documents": "chunk"}
    return ScorerOptions(**defaults | {"precision": "float32"} | options)


def encoder_for(folder: Path, **options: Any) -> PairEncoder:
    encoder = load_encoder(options_for(folder, **options))
    assert isinstance(encoder, PairEncoder)
    return encoder


def rows_of(pairs: EncodedPairs) -> list[list[int]]:
    rows = pairs.rows()
    return [ids.tolist() for ids in np.split(rows.token_ids, rows.offsets[1:-1])]


@pytest.mark.parametrize(
    ("tokens", "room", "overlap", "starts"),
    [
        # overlap None is a quarter of the room, rounded down
        (0, 8, None, [0]),
        (1, 8, None, [0]),
        (8, 8, None, [0]),
        (9, 8, None, [0, 6]),
        (14, 8, None, [0, 6]),
        (15, 8, None, [0, 6, 12]),
        (20, 8, None, [0, 6, 12]),
        (10, 3, None, [0, 3, 6, 9]),
        (9, 3, 0, [0, 3, 6]),
        (10, 3, 2, [0, 1, 2, 3, 4, 5, 6, 7]),
        (3, 1, None, [0, 1, 2]),
    ],
)
def test_where_chunks_start(tokens: int, room: int, overlap: int | None, starts: list[int]) -> None:
    assert list(chunk_starts(tokens, room, overlap)) == starts


@settings(max_examples=200)
@given(st.integers(0, 500), st.integers(1, 60), st.none() | st.integers(0, 59))
def test_chunks_cover_every_token_once_more_than_asked_never(tokens: int, room: int, overlap: int | None) -> None:
    overlap = None if overlap is None else min(overlap, room - 1)
    shared = room // 4 if overlap is None else overlap
    parts = [(start, min(start + room, tokens)) for start in chunk_starts(tokens, room, overlap)]
    assert parts[0][0] == 0
    assert parts[-1][1] == tokens
    assert all(stop - start == room for start, stop in parts[:-1])
    assert all(before[1] - after[0] == shared for before, after in pairwise(parts))
    assert len(parts) == 1 or parts[-1][1] - parts[-1][0] > shared, "a chunk brings something new"


# of 16 tokens, 3 are special: 13 to share, and 6 of them at most for the query
CASES: list[tuple[tuple[int, int], dict[str, Any], tuple[int, list[int]], bool]] = [
    # tokens of query and text; options; tokens of the query, and of the text in each chunk; truncated
    ((3, 5), {}, (3, [5]), False),
    ((3, 10), {}, (3, [10]), False),
    ((3, 11), {}, (3, [10, 3]), False),  # a quarter of 10 is 2: the second begins at 8
    ((3, 27), {}, (3, [10, 10, 10, 3]), False),
    ((50, 0), {}, (6, [0]), True),  # the query alone is too long: it is cut, and that is said
    ((50, 20), {}, (6, [7, 7, 7, 2]), True),
    ((0, 50), {"max_document_tokens": 20}, (0, [13, 10]), True),
    ((3, 20), {"max_document_tokens": 20}, (3, [10, 10, 4]), False),
    ((3, 50), {"max_document_tokens": 4}, (3, [4]), True),
    ((3, 50), {"max_document_tokens": 4, "long_documents": "truncate"}, (3, [4]), True),
    ((3, 4), {"max_document_tokens": 4, "long_documents": "truncate"}, (3, [4]), False),
    ((3, 25), {"chunk_overlap": 0}, (3, [10, 10, 5]), False),
    ((3, 12), {"chunk_overlap": 6}, (3, [10, 8]), False),
    ((6, 9), {"chunk_overlap": 6}, (6, [7, 7, 7]), False),
]


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("name", ["bert", "modernbert"])
def test_chunks_of_a_pair(
    tiny: Mapping[str, Path], name: str, case: tuple[tuple[int, int], dict[str, Any], tuple[int, list[int]], bool]
) -> None:
    (of_query, of_text), options, (query, parts), truncated = case
    encoder = encoder_for(tiny[name], **{"max_length": 16} | options)
    sign, dot = (encoder._tokenizer.tokenizer.encode(text, add_special_tokens=False).ids for text in "!.")
    pairs = encoder.encode(["! " * of_query if name == "bert" else "!" * of_query], ["." * of_text])
    prefix, middle, suffix = (list(part) for part in encoder.template.parts)
    assert rows_of(pairs) == [prefix + sign * query + middle + dot * part + suffix for part in parts]
    assert pairs.truncated.tolist() == [truncated]
    assert pairs.lengths.tolist() == [sum(query + part + 3 for part in parts)]
    assert pairs.rows().document_starts.tolist() == [2 + query] * len(parts)
    if pairs.chunks is not None:
        ends = [stop for _, stop in pairs.chunks.spans.tolist()]
        assert pairs.chunks.counts.tolist() == [len(parts)]
        assert ends[-1] == (of_text if len(parts) == 1 else min(of_text, options.get("max_document_tokens", of_text)))


@pytest.mark.parametrize("name", FAMILIES)
def test_every_token_of_any_document_is_read(tiny: Mapping[str, Path], name: str) -> None:
    encoder = encoder_for(tiny[name], max_length=24)
    template = encoder.template
    first, last = len(template.prefix), len(template.suffix)

    @SLOW_MACHINE
    @given(st.text(max_size=20), st.lists(st.sampled_from(LONG.split()) | st.text(max_size=5), max_size=40))
    def check(query: str, words: list[str]) -> None:
        text = " ".join(words)
        pairs = encoder.encode([query, "fox"], [text, text])
        assert pairs.chunks is not None
        expected = encoder._tokenizer.tokenizer.encode(text, add_special_tokens=False).ids
        rows = iter(rows_of(pairs))
        spans = iter(pairs.chunks.spans.tolist())
        for count, start in zip(pairs.chunks.counts, pairs.document_starts, strict=True):
            read: list[int] = []
            overlap = (24 - int(start) - last) // 4
            for chunk in range(count):
                row = next(rows)
                assert len(row) <= 24
                assert row[:first] == list(template.prefix)
                read += row[start:-last][overlap if chunk else 0 :]
                low, high = next(spans)
                assert 0 <= low <= high <= len(text)
            assert read == expected

    check()


def bare_chunks(
    folder: Path, encoder: PairEncoder, query: str, text: str
) -> tuple[NDArray[np.float64], list[tuple[int, int]]]:
    """Logit and characters of every chunk, by transformers alone: ids joined by hand, one chunk at a time."""
    tokenizer, network = load_reference(folder)
    prefix, middle, suffix = (list(part) for part in encoder.template.parts)
    ids = tokenizer(query, add_special_tokens=False)["input_ids"][: encoder.limits.max_query_tokens]
    found = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    room = encoder.limits.max_length - encoder.template.special_tokens - len(ids)
    start, logits, spans = 0, [], []
    while True:
        part = slice(start, start + room)
        joined = prefix + ids + middle + found["input_ids"][part] + suffix
        inputs = {"input_ids": torch.tensor([joined])}
        if encoder.template.segments:
            ahead = len(prefix + ids + middle)
            inputs["token_type_ids"] = torch.tensor([[0] * ahead + [1] * (len(joined) - ahead)])
        with torch.no_grad():
            logits.append(float(network(**inputs).logits[0, 0]))
        where = found["offset_mapping"][part]
        spans.append((min(a for a, _ in where), max(b for _, b in where)) if where else (0, 0))
        if part.stop >= len(found["input_ids"]):
            return np.asarray(logits), spans
        start += room - room // 4


@pytest.mark.parametrize("name", FAMILIES)
def test_equal_to_a_bare_loop_over_the_chunks(tiny: Mapping[str, Path], name: str) -> None:
    scorer = load_scorer(options_for(tiny[name]))
    encoder = encoder_for(tiny[name])
    queries, texts = [q for q in QUERIES for _ in TEXTS], [t for _ in QUERIES for t in TEXTS]
    pairs = scorer.encode(queries, texts)
    assert pairs.chunks is not None
    found = score(scorer, pairs)
    assert found.best is not None
    np.testing.assert_array_equal(scorer.logits(pairs), found.logits)
    for i, (query, text) in enumerate(zip(queries, texts, strict=True)):
        logits, spans = bare_chunks(tiny[name], encoder, query, text)
        assert found.logits[i] == pytest.approx(logits.max(), abs=1e-4)
        assert pairs.chunks.counts[i] == len(logits)
        if len(logits) == 1:
            assert tuple(found.best[i]) == (-1, -1)
        else:  # transformers leaves out blanks at the start of a token, a tokenizer without its post-processor does not
            (start, end), (low, high) = found.best[i], spans[int(logits.argmax())]
            assert text[start:end].strip() == text[low:high].strip()
            assert (abs(start - low) <= 1, end) == (True, high)
    assert pairs.truncated.tolist() == [query == QUERIES[2] for query in queries]


def test_documents_that_fit_score_as_ever(tiny: Mapping[str, Path]) -> None:
    queries, texts = ["fox"] * 3, ["", "dog", "The quick brown fox."]
    chunked = load_scorer(options_for(tiny["bert"], max_length=128))
    plain = load_scorer(ScorerOptions(model=str(tiny["bert"]), precision="float32"))
    found = score(chunked, chunked.encode(queries, texts))
    np.testing.assert_array_equal(found.logits, plain.logits(plain.encode(queries, texts)))
    assert found.best is not None
    assert found.best.tolist() == [[-1, -1]] * 3
    nothing = score(chunked, chunked.encode([], []))
    assert (nothing.logits.shape, nothing.best is not None) == ((0,), True)


def test_the_best_of_chunks_that_all_score_below_zero(tmp_path: Path) -> None:
    """A maximum that began with 0 would find 0."""
    folder = save_tiny_model(tmp_path / "model", "bert")
    weights = load_file(folder / "model.safetensors")
    weights["classifier.bias"] -= 100
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    scorer = load_scorer(options_for(folder))
    pairs = scorer.encode(["fox"], [LONG])
    alone = scorer.logits(pairs.rows())
    assert len(alone) > 2
    assert -200 < scorer.logits(pairs)[0] == alone.max() < -50


class Fixed:
    """A scorer that gives each row the logit that it is told; non-finite ones are named as any scorer does."""

    fingerprint = "fixed"
    activation = "identity"
    listwise = False

    def __init__(self, logits: Sequence[float]) -> None:
        self._logits = np.asarray(logits, dtype=np.float32)

    def encode(self, queries: Sequence[str], texts: Sequence[str]) -> EncodedPairs:
        raise NotImplementedError

    def logits(self, pairs: EncodedPairs) -> NDArray[np.float32]:
        assert pairs.chunks is None
        assert len(pairs) == len(self._logits)
        bad = np.flatnonzero(~np.isfinite(self._logits)).tolist()
        if bad:
            raise NonFiniteScoreError(f"{len(bad)} rows are not finite.", bad)
        return self._logits


def pairs_of(counts: list[int]) -> EncodedPairs:
    rows = sum(counts)
    spans = np.stack([np.arange(rows) * 10, np.arange(rows) * 10 + 12], axis=1).astype(np.int32)
    chunks = Chunks(np.asarray(counts, dtype=np.int32), np.ones(rows, dtype=np.int32), spans)
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    starts, truncated = np.zeros(len(counts), dtype=np.int32), np.zeros(len(counts), dtype=np.bool_)
    return EncodedPairs(np.zeros(rows, dtype=np.int32), offsets, starts, truncated, chunks)


def test_the_first_of_equal_chunks_is_the_best() -> None:
    found = score(Fixed([-3, -1, -1, 5, 2, 7]), pairs_of([3, 1, 2]))
    assert found.logits.tolist() == [-1, 5, 7]
    assert found.best is not None
    assert found.best.tolist() == [[10, 22], [-1, -1], [50, 62]]


def test_a_chunk_that_is_not_finite_names_its_pair() -> None:
    with pytest.raises(NonFiniteScoreError) as caught:
        score(Fixed([0, -np.inf, np.nan, 5, 2, np.nan]), pairs_of([3, 1, 2]))
    assert caught.value.pairs == (0, 2)


def test_an_encoder_survives_pickling(tiny: Mapping[str, Path]) -> None:
    encoder = encoder_for(tiny["bert"], chunk_overlap=3, max_document_tokens=80)
    copy = pickle.loads(pickle.dumps(encoder))  # noqa: S301 - our own bytes
    assert rows_of(copy.encode(["fox"], [LONG])) == rows_of(encoder.encode(["fox"], [LONG]))


def test_characters_are_those_of_the_document(tiny: Mapping[str, Path]) -> None:
    text = "😀 " * 30 + "The quick brown fox jumps" + " 漢字" * 30
    pairs = encoder_for(tiny["bert"], max_length=20).encode(["fox"], [text])
    assert pairs.chunks is not None
    covered = [text[start:end] for start, end in pairs.chunks.spans]
    assert covered[0].startswith("😀")
    assert covered[-1].endswith("漢字")
    assert any("quick" in part for part in covered)


@pytest.mark.parametrize(
    "options",
    [
        {"long_documents": "chunk"},
        {"long_documents": "chunk", "chunk_overlap": 5},
        {"long_documents": "chunk", "chunk_overlap": 0},
        {"long_documents": "chunk", "max_document_tokens": 500},
        {"max_document_tokens": 500},
    ],
)
def test_the_fingerprint_knows(tiny: Mapping[str, Path], options: dict[str, Any]) -> None:
    def fingerprint(**given: Any) -> str:
        return check_model(ScorerOptions(model=str(tiny["bert"]), **given)).fingerprint

    assert fingerprint(**options) != fingerprint()
    assert fingerprint(**options) != fingerprint(long_documents="chunk", chunk_overlap=7)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"chunk_overlap": 5, "long_documents": "truncate"}, "--chunk-overlap 5 needs --long-documents chunk"),
        ({"chunk_overlap": -1}, "--chunk-overlap is -1"),
        ({"chunk_overlap": 19}, "--chunk-overlap 19 leaves no step .* at most 18"),
        ({"long_documents": "split"}, "--long-documents is 'split'; it must be one of truncate, chunk"),
        ({"max_document_tokens": 0}, "--max-document-tokens is 0"),
    ],
)
def test_refusals(tiny: Mapping[str, Path], options: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        load_encoder(options_for(tiny["bert"], **options))


def test_the_largest_overlap_still_moves_on(tiny: Mapping[str, Path]) -> None:
    pairs = encoder_for(tiny["bert"], chunk_overlap=18).encode(["fox " * 50], ["." * 30])
    assert pairs.chunks is not None
    assert pairs.chunks.counts.tolist() == [12]
