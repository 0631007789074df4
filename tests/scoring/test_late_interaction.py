"""Late interaction: equal to ColBERT's definition, written out here, and to sentence-transformers' reading of it."""

import json
import logging
import pickle
import shutil
import string
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file

from rankmill.errors import ModelError, UsageError
from rankmill.scoring.embedding_scorer import EmbeddingScorer
from rankmill.scoring.engines import torch_embed
from rankmill.scoring.load import check_model, load_encoder, load_scorer
from rankmill.scoring.options import ScorerOptions
from rankmill.scoring.sided_encoder import SidedEncoder
from rankmill.types import EncodedPairs
from tests.scoring.reference import all_pairs
from tests.scoring.tiny_embedders import HIDDEN, save_pylate, save_stanford

SHAPES: dict[str, Callable[[Path], Path]] = {
    "stanford": save_stanford,
    "stanford, mask seen": lambda f: save_stanford(f, attend_to_mask_tokens=True),
    "stanford, punctuation counts": lambda f: save_stanford(f, mask_punctuation=False),
    "stanford, other lengths": lambda f: save_stanford(f, query_maxlen=32, doc_maxlen=12),
    "pylate": save_pylate,
    "pylate, mask seen": lambda f: save_pylate(f, attend_to_expansion_tokens=True),
    "pylate, not filled up": lambda f: save_pylate(f, do_query_expansion=False),
    "pylate, nothing skipped": lambda f: save_pylate(f, skiplist_words=[]),
    "pylate, two layers": lambda f: save_pylate(f, widths=(16, 8), residual=True),
    "pylate, residual of equal width": lambda f: save_pylate(f, widths=(HIDDEN, 4), residual=True),
    "pylate, prompts": lambda f: save_pylate(f, prompts={"query": "find ", "document": "text "}),
    "pylate, lower case": lambda f: save_pylate(f, lower_case=True),  # as mxbai-edge-colbert-v0
    "pylate on bert": lambda f: save_pylate(f, "bert"),
    "pylate on xlm-roberta": lambda f: save_pylate(f, "xlm-roberta"),
}


@pytest.fixture(scope="module", params=["stanford", "pylate"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One of each kind; read only."""
    return SHAPES[request.param](tmp_path_factory.mktemp("late") / "model")


def load(folder: Path, **options: Any) -> EmbeddingScorer:
    scorer = load_scorer(ScorerOptions(model=str(folder), **options))
    assert isinstance(scorer, EmbeddingScorer)
    return scorer


def score(folder: Path, queries: list[str], texts: list[str], **options: Any) -> NDArray[np.float32]:
    scorer = load(folder, **options)
    return scorer.logits(scorer.encode(queries, texts))


class Definition:
    """ColBERT as its paper and the two projects' files define it: one text at a time, with transformers alone."""

    def __init__(self, folder: Path) -> None:
        self.tokenizer: Any = transformers.AutoTokenizer.from_pretrained(folder)
        state = load_file(folder / "model.safetensors")
        stanford = (folder / "artifact.metadata").is_file()
        self.lower = not stanford and json.loads((folder / "sentence_bert_config.json").read_text())["do_lower_case"]
        config = json.loads((folder / "config.json").read_text())
        auto: Any = transformers.AutoModel
        self.network = auto.from_config(auto_config(config), attn_implementation="eager").eval()
        own = {name.removeprefix("bert."): tensor for name, tensor in state.items() if name != "linear.weight"}
        self.network.load_state_dict(own)
        if stanford:
            stated = json.loads((folder / "artifact.metadata").read_text())
            self.layers: list[tuple[dict[str, torch.Tensor], bool]] = [(state, False)]
            self.markers = stated["query_token_id"], stated["doc_token_id"]
            self.lengths = stated["query_maxlen"], stated["doc_maxlen"]
            self.fill, self.attend = True, stated["attend_to_mask_tokens"]
            words = list(string.punctuation) if stated["mask_punctuation"] else []
            self.prompts = "", ""
        else:
            stated = json.loads((folder / "config_sentence_transformers.json").read_text())
            self.layers = [
                (
                    load_file(path / "model.safetensors"),
                    json.loads((path / "config.json").read_text())["use_residual"],
                )
                for path in sorted(folder.glob("*_Dense"))
            ]
            self.markers = stated["query_prefix"], stated["document_prefix"]
            self.lengths = stated["query_length"], stated["document_length"]
            self.fill, self.attend = stated["do_query_expansion"], stated["attend_to_expansion_tokens"]
            words = stated["skiplist_words"]
            self.prompts = stated["prompts"]["query"], stated["prompts"]["document"]
        self.skipped = {self.tokenizer.get_vocab()[word] for word in words if word in self.tokenizer.get_vocab()}

    def score(self, query: str, text: str) -> float:
        ids, seen = self.ids(0, query)
        if self.fill:
            missing = self.lengths[0] - len(ids)
            ids, seen = ids + [self.tokenizer.mask_token_id] * missing, seen + [int(self.attend)] * missing
        left = self.vectors(ids, seen)
        ids, seen = self.ids(1, text)
        kept = [i for i, token in enumerate(ids) if token not in self.skipped]
        return float((left @ self.vectors(ids, seen)[kept].T).max(dim=1).values.sum())

    def read(self, text: str) -> str:
        return text.lower() if self.lower else text

    def ids(self, side: int, text: str) -> tuple[list[int], list[int]]:
        marker = self.tokenizer.get_vocab()[self.markers[side]]
        tokens = self.tokenizer([self.read(self.prompts[side] + text)], add_special_tokens=False)["input_ids"][0]
        tokenizer = self.tokenizer
        first = tokenizer.cls_token_id
        last = tokenizer.sep_token_id
        ids = [first, marker, *tokens[: self.lengths[side] - 3], last]
        return ids, [1] * len(ids)

    def vectors(self, ids: list[int], seen: list[int]) -> torch.Tensor:
        with torch.no_grad():
            inputs = {"input_ids": torch.tensor([ids]), "attention_mask": torch.tensor([seen])}
            values: torch.Tensor = self.network(**inputs).last_hidden_state[0]
        for weights, residual in self.layers:
            found = values @ weights["linear.weight"].T
            if residual:
                found = found + (values @ weights["residual.weight"].T if "residual.weight" in weights else values)
            values = found
        return torch.nn.functional.normalize(values, dim=1)


def auto_config(config: Mapping[str, Any]) -> Any:
    build: Any = transformers.AutoConfig.for_model
    return build(**config)


@pytest.mark.parametrize("shape", SHAPES)
def test_equal_to_the_definition(tmp_path: Path, shape: str) -> None:
    folder = SHAPES[shape](tmp_path / "model")
    definition = Definition(folder)
    queries, texts = all_pairs()
    expected = np.array([definition.score(query, text) for query, text in zip(queries, texts, strict=True)])
    assert np.ptp(expected) > 1
    np.testing.assert_allclose(score(folder, queries, texts), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("shape", SHAPES)
def test_equal_to_sentence_transformers(tmp_path: Path, shape: str) -> None:
    library = pytest.importorskip("sentence_transformers")
    if not hasattr(library, "MultiVectorEncoder"):
        pytest.skip("this release reads no ColBERT")
    folder = SHAPES[shape](tmp_path / "model")
    logging.getLogger("sentence_transformers").setLevel(logging.ERROR)
    model = library.MultiVectorEncoder(str(folder), device="cpu", local_files_only=True)
    queries, texts = all_pairs()
    expected = model.similarity_pairwise(model.encode_query(queries), model.encode_document(texts)).cpu().numpy()
    np.testing.assert_allclose(score(folder, queries, texts), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("budget", [1, 64, 100_000])
def test_the_batch_does_not_matter(folder: Path, budget: int, monkeypatch: pytest.MonkeyPatch) -> None:
    queries, texts = all_pairs()
    whole = score(folder, queries, texts)
    monkeypatch.setitem(torch_embed._COMPARED_NUMBERS, "cpu", 5_000)  # comparing takes several rounds too
    scorer = load(folder, batch_tokens=budget)
    order = np.random.default_rng(0).permutation(len(queries))
    shuffled = scorer.logits(scorer.encode([queries[i] for i in order], [texts[i] for i in order]))
    np.testing.assert_allclose(shuffled, whole[order], rtol=1e-5, atol=1e-5)
    alone = [float(scorer.logits(scorer.encode([queries[i]], [texts[i]]))[0]) for i in (0, 9, 40)]
    np.testing.assert_allclose(alone, whole[[0, 9, 40]], rtol=1e-5, atol=1e-5)


def test_each_distinct_text_is_embedded_once_and_documents_are_dropped(folder: Path) -> None:
    scorer = load(folder, batch_tokens=40)  # a document of 40 tokens at a time
    seen: list[tuple[bool, int]] = []
    inner = scorer.engine.embed

    def counted(sequences: EncodedPairs, rows: NDArray[np.int64], *, queries: bool) -> Any:
        seen.append((queries, len(rows)))
        return inner(sequences, rows, queries=queries)

    scorer.engine.embed = counted  # type: ignore[method-assign]
    texts = ["x " * 50, "y " * 50, "x " * 50, "x " * 50]
    scorer.logits(scorer.encode(["q", "q", "r", "q"], texts))
    assert sum(rows for queries, rows in seen if queries) == 2
    assert [rows for queries, rows in seen if not queries] == [1, 1]


def test_the_sequences(folder: Path) -> None:
    tokenizer: Any = transformers.AutoTokenizer.from_pretrained(folder)
    names = ("[unused0]", "[unused1]") if (folder / "artifact.metadata").is_file() else ("[Q] ", "[D] ")
    query_marker, document_marker = (tokenizer.get_vocab()[name] for name in names)
    cls, sep, mask = tokenizer.cls_token_id, tokenizer.sep_token_id, tokenizer.mask_token_id
    comma = tokenizer(",", add_special_tokens=False)["input_ids"][0]
    cases: list[tuple[int, int, dict[str, Any], int, int, bool]] = [
        # commas of query and document, options, kept of both, truncated
        (3, 5, {}, 3, 5, False),
        (13, 37, {}, 13, 37, False),  # of 16 and of 40, three are special
        (14, 5, {}, 13, 5, True),
        (3, 38, {}, 3, 37, True),
        (0, 0, {}, 0, 0, False),
        (9, 9, {"max_query_tokens": 4}, 4, 9, True),  # still filled up
        (9, 50, {"max_length": 20}, 9, 17, True),
        (9, 50, {"max_length": 50}, 9, 47, True),
    ]
    for of_query, of_text, options, kept_query, kept_text, truncated in cases:
        encoder = load_encoder(ScorerOptions(model=str(folder), **options))
        pairs = encoder.encode(["," * of_query], ["," * of_text])
        query = [cls, query_marker, *[comma] * kept_query, sep]
        query += [mask] * (16 - len(query))
        assert pairs.token_ids.tolist() == [*query, cls, document_marker, *[comma] * kept_text, sep]
        assert pairs.document_starts.tolist() == [16]
        assert pairs.truncated.tolist() == [truncated]


def test_markers_and_masks_in_a_text_are_text(folder: Path) -> None:
    encoder = load_encoder(ScorerOptions(model=str(folder)))
    assert isinstance(encoder, SidedEncoder)
    plain = encoder.encode(["x"], ["x"])
    special = {*encoder.query.prefix, *encoder.document.prefix, *encoder.query.suffix, encoder.query.filler}
    for text in ("[Q] x", "[D] [D] x", "[unused0]", "[unused1] x", "[MASK]", "x [SEP] [CLS]"):
        pairs = encoder.encode(["x"], [text])
        found = [i for i in pairs.token_ids[16:].tolist() if i in special]
        assert found == [i for i in plain.token_ids[16:].tolist() if i in special], text


def test_an_encoder_survives_pickling(folder: Path) -> None:
    encoder = load_encoder(ScorerOptions(model=str(folder)))
    again = pickle.loads(pickle.dumps(encoder))  # noqa: S301 - our own bytes
    queries, texts = all_pairs()
    assert again.encode(queries, texts).token_ids.tolist() == encoder.encode(queries, texts).token_ids.tolist()


def test_nothing_in_nothing_out(folder: Path) -> None:
    scorer = load(folder)
    assert scorer.logits(scorer.encode([], [])).shape == (0,)


def test_a_card(folder: Path) -> None:
    card = check_model(ScorerOptions(model=str(folder)))
    assert (card.kind, card.activation) == ("late-interaction", "identity")
    assert (card.max_length, card.max_query_tokens) == (40, 13)
    assert "[MASK] … and [CLS]" in card.input_format
    assert card.pooling.startswith("one vector of 8 numbers per token")
    assert load(folder).fingerprint == card.fingerprint


def test_parameters_count_the_projection(tmp_path: Path) -> None:
    counts: list[int] = []
    for name, width in (("narrow", 8), ("wide", 9)):
        for save in (save_stanford, lambda folder, width: save_pylate(folder, widths=(width,))):
            folder = tmp_path / f"{name}{len(counts)}"
            save(folder, width)
            counts.append(check_model(ScorerOptions(model=str(folder))).parameters)
    assert [counts[2] - counts[0], counts[3] - counts[1]] == [HIDDEN, HIDDEN]


def edit_json(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


METADATA: list[dict[str, Any]] = [
    {"query_maxlen": 20},
    {"doc_maxlen": 41},
    {"attend_to_mask_tokens": True},
    {"mask_punctuation": False},
    {"query_token_id": "[unused1]"},
]


@pytest.mark.parametrize("change", METADATA, ids=str)
def test_fingerprints_differ_where_logits_do(tmp_path: Path, change: dict[str, Any]) -> None:
    folder = save_stanford(tmp_path / "model")
    before = check_model(ScorerOptions(model=str(folder))).fingerprint
    edit_json(folder / "artifact.metadata", bsize=7)  # how it was trained
    assert check_model(ScorerOptions(model=str(folder))).fingerprint == before
    edit_json(folder / "artifact.metadata", **change)
    assert check_model(ScorerOptions(model=str(folder))).fingerprint != before


def test_bfloat16_is_close(folder: Path) -> None:
    queries, texts = all_pairs()
    exact, rounded = score(folder, queries, texts), score(folder, queries, texts, precision="bfloat16")
    assert 0 < np.abs(exact - rounded).max() < 0.02 * np.abs(exact).max()


def without_projection(folder: Path) -> None:
    state = load_file(folder / "model.safetensors")
    del state["linear.weight"]
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})


STANFORD_REFUSED: dict[str, tuple[Callable[[Path], Any], str]] = {
    "no metadata": (lambda f: (f / "artifact.metadata").unlink(), "artifact.metadata is missing"),
    "no projection": (without_projection, "linear.weight, its projection, is not in"),
    "another similarity": (lambda f: edit_json(f / "artifact.metadata", similarity="l2"), "compares tokens by 'l2'"),
    "marker that is no token": (
        lambda f: edit_json(f / "artifact.metadata", query_token_id="[Query]"),  # noqa: S106 - no password
        r"with '\[Query\]', which is no token",
    ),
    "length that is no number": (
        lambda f: edit_json(f / "artifact.metadata", query_maxlen="long"),
        "artifact.metadata says query_maxlen = 'long'",
    ),
    "no room for a query": (lambda f: edit_json(f / "artifact.metadata", query_maxlen=3), "reads 3 tokens of a query"),
    "on another network": (lambda f: edit_json(f / "config.json", model_type="electra"), "only those on BERT"),
    "remote code": (lambda f: edit_json(f / "config.json", auto_map={"AutoModel": "x.Y"}), "own Python code .auto_map"),
}
PYLATE_REFUSED: dict[str, tuple[Callable[[Path], Any], str]] = {
    "another similarity": (
        lambda f: edit_json(f / "config_sentence_transformers.json", similarity_fn_name="XTR"),
        "compares by 'XTR'",
    ),
    "no marker": (
        lambda f: edit_json(f / "config_sentence_transformers.json", query_prefix=None),
        "marks queries or documents with ''",
    ),
    "no projection": (lambda f: shutil.rmtree(f / "1_Dense"), "1_Dense/config.json is missing"),
    "another network": (lambda f: edit_json(f / "config.json", model_type="t5"), "network of the type 't5'"),
}


@pytest.mark.parametrize(
    ("save", "case"),
    [(save_stanford, case) for case in STANFORD_REFUSED.values()]
    + [(save_pylate, case) for case in PYLATE_REFUSED.values()],
    ids=[*STANFORD_REFUSED, *(f"pylate, {name}" for name in PYLATE_REFUSED)],
)
def test_refused(tmp_path: Path, save: Callable[[Path], Path], case: tuple[Callable[[Path], Any], str]) -> None:
    folder = save(tmp_path / "model")
    spoil, words = case
    spoil(folder)
    with pytest.raises(ModelError, match=words):
        check_model(ScorerOptions(model=str(folder)))


def test_a_query_cannot_be_longer_than_the_model_reads(folder: Path) -> None:
    with pytest.raises(UsageError, match="--max-query-tokens 14 is more than the 13 tokens"):
        check_model(ScorerOptions(model=str(folder), max_query_tokens=14))
