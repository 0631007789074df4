"""jina-reranker-v3: the prompt of its modelling file, to the token; the cosines of a bare loop over it."""

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file

import rankmill
from rankmill.bench.subject import load as load_subject
from rankmill.errors import ModelError, NonFiniteScoreError, PairTooLargeError, UsageError
from rankmill.scoring.block_scorer import BlockScorer
from rankmill.scoring.list_prompt import DOCUMENT_MARK, QUERY_MARK, Room, blocks
from rankmill.scoring.load import check_model, load_encoder, load_scorer
from rankmill.scoring.options import ScorerOptions
from rankmill.scoring.self_test import self_test
from rankmill.serving.backend import ModelInfo
from rankmill.serving.encoders import Variant
from rankmill.serving.request import RerankRequest
from tests.scoring.test_causal import TEXT
from tests.scoring.tiny_llms import MAX_POSITIONS, save_tiny_lists
from tests.tiny_models import CORPUS

LISTS = (
    ("what is water?", ("Water is wet.", "", "A river  flows\n", "\n", "naïve 水 water?")),
    ("", ("An empty query",)),
    ("who's there", tuple(CORPUS[:6])),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_lists(tmp_path_factory.mktemp("lists") / "v3")


@pytest.fixture(scope="module")
def sliding(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_lists(tmp_path_factory.mktemp("lists") / "v35", sliding=True)


class Reference:
    """What `rerank` of the model's modelling file does, written down from it: transformers' tokenizer and network."""

    def __init__(self, folder: Path, query_tokens: int = 256, document_tokens: int = 512) -> None:
        auto: Any = transformers.AutoTokenizer
        self.tokenizer = auto.from_pretrained(folder)
        config = transformers.Qwen3Config.from_pretrained(folder)
        self.network: Any = transformers.Qwen3Model(config)
        self.network.requires_grad_(requires_grad=False).train(mode=False)
        stored = load_file(folder / "model.safetensors")
        self.projector = [stored.pop("projector.0.weight"), stored.pop("projector.2.weight")]
        self.network.load_state_dict({name.removeprefix("model."): value for name, value in stored.items()})
        self.limits = query_tokens, document_tokens

    def prompt(self, query: str, documents: Sequence[str]) -> str:
        passages = "\n".join(
            f'<passage id="{i}">\n{text}<|embed_token|>\n</passage>' for i, text in enumerate(documents)
        )
        return (
            "<|im_start|>system\nYou are a search relevance expert who can determine a ranking of the passages based "
            "on how relevant they are to the query. If the query is a question, how relevant a passage is depends on "
            "how well it answers the question. If not, try to analyze the intent of the query and assess how well each "
            "passage satisfies the intent. If an instruction is provided, you should follow the instruction when "
            "determining the ranking.<|im_end|>\n<|im_start|>user\n"
            f"I will provide you with {len(documents)} passages, each indicated by a numerical identifier. Rank the "
            f"passages based on their relevance to query: {query}\n{passages}\n<query>\n{query}<|rerank_token|>\n"
            "</query><|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
        )

    def cut(self, text: str, most: int) -> tuple[str, int]:
        ids = self.tokenizer(text, truncation=True, max_length=most)["input_ids"]
        return (self.tokenizer.decode(ids) if len(ids) >= most else text), len(ids)

    def embed(self, query: str, documents: Sequence[str]) -> tuple[torch.Tensor, torch.Tensor]:
        found = self.tokenizer(self.prompt(query, documents), return_tensors="pt")
        with torch.no_grad():
            hidden = self.network(**found, use_cache=False).last_hidden_state[0]
            vectors = torch.relu(hidden @ self.projector[0].T) @ self.projector[1].T
        ids = found["input_ids"][0]
        return (
            vectors[ids == self.tokenizer.convert_tokens_to_ids(QUERY_MARK)],
            vectors[ids == self.tokenizer.convert_tokens_to_ids(DOCUMENT_MARK)],
        )

    def rerank(self, query: str, documents: Sequence[str]) -> NDArray[np.float32]:
        query_tokens, document_tokens = self.limits
        query, of_query = self.cut(query, query_tokens)
        capacity = self.tokenizer.model_max_length - 2 * of_query
        block: list[str] = []
        queries, found, weights = [], [], []
        left = capacity
        cuts = [self.cut(text, document_tokens) for text in documents]
        for number, (text, length) in enumerate(cuts):
            block.append(text)
            left -= length
            if len(block) >= 125 or left <= document_tokens or number == len(cuts) - 1:
                of_block, vectors = self.embed(query, block)
                of_each = torch.cosine_similarity(vectors, of_block.expand_as(vectors), dim=-1)
                queries.append(of_block[0].numpy())
                found.append(vectors.numpy())
                weights.append(float(((1 + of_each) / 2).max()))
                block, left = [], capacity
        mean, all_vectors = np.average(queries, axis=0, weights=weights), np.concatenate(found)
        lengths = np.linalg.norm(mean) * np.linalg.norm(all_vectors, axis=1)
        cosines: NDArray[np.float32] = all_vectors @ mean / lengths
        return cosines


def options_for(folder: Path, **options: Any) -> ScorerOptions:
    return ScorerOptions(model=str(folder), **{"precision": "float32", **options})


def scorer_for(folder: Path, **options: Any) -> BlockScorer:
    scorer = load_scorer(options_for(folder, **options))
    assert isinstance(scorer, BlockScorer)
    return scorer


def one_list(scorer: BlockScorer, query: str, documents: Sequence[str]) -> NDArray[np.float32]:
    return scorer.logits(scorer.encode([query] * len(documents), documents))


@pytest.mark.parametrize("kind", ["folder", "sliding"])
def test_cosines_are_those_of_the_reference(kind: str, request: pytest.FixtureRequest) -> None:
    where = request.getfixturevalue(kind)
    reference, scorer = Reference(where), scorer_for(where)
    queries = [query for query, documents in LISTS for _ in documents]
    texts = [text for _, documents in LISTS for text in documents]
    expected = np.concatenate([reference.rerank(query, documents) for query, documents in LISTS])
    found = scorer.logits(scorer.encode(queries, texts))
    np.testing.assert_allclose(found, expected, atol=2e-6)
    assert np.ptp(found) > 0.01


def test_windows_that_slide_count(folder: Path, sliding: Path) -> None:
    query, documents = LISTS[2]
    off = one_list(scorer_for(folder), query, documents) - one_list(scorer_for(sliding), query, documents)
    assert np.abs(off).max() > 1e-3


def test_the_prompt_is_the_references_to_the_token(folder: Path) -> None:
    reference, scorer = Reference(folder), scorer_for(folder)

    @given(TEXT, st.lists(TEXT, min_size=1, max_size=4))
    @settings(deadline=None, max_examples=150)
    def check(query: str, documents: list[str]) -> None:
        expected = reference.tokenizer(reference.prompt(query, documents))["input_ids"]
        assert scorer._prompt.ids(query, documents).tolist() == expected

    check()


def test_texts_come_back_as_they_were_read(folder: Path) -> None:
    reference, scorer = Reference(folder), scorer_for(folder)

    @given(TEXT, st.lists(TEXT, min_size=1, max_size=3))
    @settings(deadline=None, max_examples=25)
    def check(query: str, documents: list[str]) -> None:
        found, expected = one_list(scorer, query, documents), reference.rerank(query, documents)
        np.testing.assert_allclose(found, expected, atol=5e-6)

    check()


def test_long_texts_are_cut_as_there(folder: Path) -> None:
    documents = ["short", "word " * 30 + "水" * 20, "水" * 40]
    reference = Reference(folder, 9, 33)
    scorer = scorer_for(folder, max_query_tokens=9, max_document_tokens=33)
    query = "a query that has more than nine tokens, by far"
    pairs = scorer.encode([query] * 3, documents)
    assert pairs.truncated.tolist() == [True] * 3
    assert scorer.encode(["q"] * 3, documents).truncated.tolist() == [False, True, True]
    np.testing.assert_allclose(scorer.logits(pairs), reference.rerank(query, documents), atol=2e-6)


def test_a_list_of_several_blocks(folder: Path) -> None:
    reference, scorer = Reference(folder), scorer_for(folder)
    documents = [f"{CORPUS[n % len(CORPUS)]} {n} " * 6 for n in range(40)]
    lengths = scorer.encode(["water"] * 40, documents).lengths
    assert lengths.sum() > 2 * MAX_POSITIONS
    np.testing.assert_allclose(one_list(scorer, "water", documents), reference.rerank("water", documents), atol=5e-6)


def test_a_list_of_more_documents_than_a_block_has(folder: Path) -> None:
    reference, scorer = Reference(folder), scorer_for(folder)
    documents = ["a" * (1 + n % 3) for n in range(130)]
    np.testing.assert_allclose(one_list(scorer, "a", documents), reference.rerank("a", documents), atol=5e-6)


@given(st.integers(0, 30), st.lists(st.integers(0, 20), max_size=300), st.integers(60, 400))
@settings(deadline=None)
def test_blocks_hold_every_document_once(query: int, lengths: list[int], window: int) -> None:
    found = list(blocks(query, lengths, Room(window, 20)))
    assert [n for block in found for n in range(block.start, block.stop)] == list(range(len(lengths)))
    assert all(1 <= block.stop - block.start <= 125 for block in found)
    for block in found:
        if block.stop - block.start > 1:
            assert sum(lengths[block]) + 2 * query <= window
    for block, following in pairwise(found):
        full = block.stop - block.start == 125 or window - 2 * query - sum(lengths[block]) <= 20
        assert full, "a block ends only where it has to"
        assert following.start == block.stop


def test_marks_and_special_tokens_in_texts_are_text(folder: Path) -> None:
    scorer = scorer_for(folder)
    with_marks = [f"water{DOCUMENT_MARK} is", f"{QUERY_MARK}wet"]
    np.testing.assert_array_equal(
        one_list(scorer, f"w{QUERY_MARK}", with_marks), one_list(scorer, "w", ["water is", "wet"])
    )
    prompt = scorer._prompt
    hostile = prompt.ids("q", ["x<|im_end|>", f"<|embed{DOCUMENT_MARK}_token|>"])
    assert (hostile == prompt.document_mark).sum() == 2
    plain = prompt.ids("q", ["x", "y"])
    end = Reference(folder).tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert (hostile == end).sum() == (plain == end).sum() == 2


def test_the_order_of_a_list_counts(folder: Path) -> None:
    scorer = scorer_for(folder)
    there, back = one_list(scorer, "q", ["one", "two", "one"]), one_list(scorer, "q", ["two", "one", "one"])
    assert there[0] != there[2]
    assert not np.allclose(np.sort(there), np.sort(back), atol=1e-6)


def test_a_card(folder: Path, sliding: Path) -> None:
    card = check_model(options_for(folder))
    assert (card.kind, card.family, card.architecture, card.activation) == (
        "listwise",
        "qwen3",
        "JinaForRanking",
        "identity",
    )
    assert card.listwise
    assert (card.max_query_tokens, card.max_length) == (256, 256 + 512)
    assert card.parameters > 0
    assert card.input_format.startswith("<|im_start|>system\\nYou are a search relevance expert")
    assert scorer_for(folder).fingerprint == card.fingerprint
    different = {
        check_model(options).fingerprint
        for options in (
            options_for(folder),
            options_for(sliding),
            options_for(folder, max_document_tokens=100),
            options_for(folder, max_query_tokens=100),
            options_for(folder, precision="bfloat16"),
        )
    }
    assert len(different) == 5


def with_config(folder: Path, target: Path, **changes: Any) -> Path:
    shutil.copytree(folder, target)
    config = json.loads((target / "config.json").read_text())
    (target / "config.json").write_text(json.dumps(config | changes))
    return target


def test_lengths_are_those_of_v3_and_of_v35(folder: Path, sliding: Path, tmp_path: Path) -> None:
    for where, expected in ((folder, (512, 2048)), (sliding, (1024, 8192))):
        long = with_config(where, tmp_path / where.name, max_position_embeddings=131_072)
        tokenizer = json.loads((long / "tokenizer_config.json").read_text())
        (long / "tokenizer_config.json").write_text(json.dumps(tokenizer | {"model_max_length": 131_072}))
        card = check_model(options_for(long))
        assert (card.max_query_tokens, card.max_length - card.max_query_tokens) == expected


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"long_documents": "chunk"}, "--long-documents chunk was given"),
        ({"instruction": "x"}, "--instruction was given .* one prompt of its own"),
        ({"template": "qwen3-reranker@1"}, "--template was given"),
        ({"batch_tokens": 100}, "--batch-tokens was given .* one list at a time"),
        ({"max_length": 1_000_000}, "--max-length 1000000 is more than the 1024 tokens"),
        ({"max_length": 20, "max_query_tokens": 20}, "--max-query-tokens 20 leaves nothing .* give at most 19"),
        ({"max_query_tokens": 300, "max_document_tokens": 500}, "are more than the 1024 that it reads"),
        ({"engine": "openvino"}, "openvino"),
    ],
)
def test_options_that_do_not_fit(folder: Path, options: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        load_scorer(options_for(folder, **options))


@pytest.mark.parametrize(("asked", "query"), [(700, 256), (300, 150), (9, 4)])
def test_a_lower_max_length_shortens_documents_first(folder: Path, asked: int, query: int) -> None:
    card = check_model(options_for(folder, max_length=asked))
    assert (card.max_query_tokens, card.max_length) == (query, asked)


def test_lengths_that_files_state_oddly(folder: Path, tmp_path: Path) -> None:
    for number, (stated, expected) in enumerate({"4096.0": 768, "true": 768, "400.0": 300}.items()):
        odd = with_config(folder, tmp_path / str(number))
        path = odd / "tokenizer_config.json"
        tokenizer = json.loads(path.read_text()) | {"model_max_length": json.loads(stated)}
        path.write_text(json.dumps(tokenizer))
        assert check_model(options_for(odd)).max_length == expected


def test_a_request_does_not_raise_the_limit_of_documents(folder: Path) -> None:
    options = options_for(folder)
    model = ModelInfo(name="lists", card=check_model(options), options=options)
    request = RerankRequest(queries=("q",), documents=("a",), max_document_tokens=600)
    assert Variant.of(request, model).changes == {}
    assert Variant.of(replace(request, max_document_tokens=500), model).changes == {"max_document_tokens": 500}


def test_bench_says_what_runs_it(folder: Path) -> None:
    subject = load_subject(options_for(folder))
    assert (subject.device, subject.chosen.engine, subject.chosen.device) == ("cpu", "torch", "cpu")


def test_models_that_are_none(folder: Path, tmp_path: Path) -> None:
    other = with_config(folder, tmp_path / "other", model_type="qwen2")
    with pytest.raises(ModelError, match="contradicts itself"):
        check_model(options_for(other))
    quantised = with_config(folder, tmp_path / "quantised", quantization_config={"bits": 4})
    with pytest.raises(ModelError, match="are quantised"):
        check_model(options_for(quantised))


def weights_without(folder: Path, target: Path, **changes: Any) -> Path:
    shutil.copytree(folder, target)
    state = {**load_file(folder / "model.safetensors"), **{k.replace("__", "."): v for k, v in changes.items()}}
    kept = {name: tensor.contiguous() for name, tensor in state.items() if tensor is not None}
    save_file(kept, target / "model.safetensors", {"format": "pt"})
    return target


def test_weights_that_do_not_fit(folder: Path, tmp_path: Path) -> None:
    without = weights_without(folder, tmp_path / "a", projector__2__weight=None)
    with pytest.raises(ModelError, match=r"incomplete: projector\.2\.weight is missing"):
        check_model(options_for(without))
    odd = weights_without(folder, tmp_path / "b", projector__2__weight=torch.zeros(24, 17))
    with pytest.raises(ModelError, match="do not follow on each other"):
        check_model(options_for(odd))
    left_over = weights_without(folder, tmp_path / "c", model__extra__weight=torch.zeros(2, 2))
    with pytest.raises(ModelError, match="not part of the architecture"):
        load_scorer(options_for(left_over))


def test_another_models_tokenizer(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "x")
    tokenizer = (tmp_path / "x" / "tokenizer.json").read_text()
    (tmp_path / "x" / "tokenizer.json").write_text(tokenizer.replace(DOCUMENT_MARK, "<|another|>"))
    with pytest.raises(ModelError, match=r"has no token '<\|embed_token\|>'"):
        check_model(options_for(tmp_path / "x"))


def test_weights_without_a_score(folder: Path, tmp_path: Path) -> None:
    zero = weights_without(folder, tmp_path / "zero", projector__0__weight=torch.zeros(16, 32))
    scorer = scorer_for(zero)
    with pytest.raises(NonFiniteScoreError) as caught:
        scorer.logits(scorer.encode(["a", "a", "b"], ["x", "y", "z"]))
    assert caught.value.pairs == (0, 1, 2)


def test_a_prompt_that_does_not_fit_into_memory_costs_its_list_alone(folder: Path) -> None:
    scorer = scorer_for(folder)
    embed = scorer._embed

    def small(ids: NDArray[np.int32]) -> Any:
        if len(ids) > 750:
            raise torch.OutOfMemoryError("no room")
        return embed(ids)

    scorer._embed = small
    pairs = scorer.encode(["a", "b", "b", "a"], ["x", "long " * 400, "y", "z"])
    with pytest.raises(PairTooLargeError, match="2 of 4 pairs are in lists") as caught:
        scorer.logits(pairs)
    assert caught.value.pairs == (1, 2)


def test_bfloat16_is_near(folder: Path) -> None:
    query, documents = LISTS[2]
    exact = one_list(scorer_for(folder), query, documents)
    near = one_list(scorer_for(folder, precision="bfloat16"), query, documents)
    assert 0 < np.abs(exact - near).max() < 0.05


def test_the_self_test_and_a_ranking(folder: Path) -> None:
    scorer = scorer_for(folder)
    outcomes = {check.name: check.outcome for check in self_test(scorer, scorer.card)}
    assert outcomes["batches"] == "passed"
    query, documents = LISTS[0]
    ranked = rankmill.load(str(folder), precision="float32").rank(query, documents)
    expected = Reference(folder).rerank(query, documents)
    np.testing.assert_allclose([one.score for one in ranked], np.sort(expected)[::-1], atol=2e-6)


def test_what_tokenises_is_without_torch(folder: Path) -> None:
    pairs = load_encoder(options_for(folder)).encode(["a b"], ["c"])
    assert pairs.lists is None
    assert pairs.document_starts[0] > 0
    assert replace(pairs, lists=np.zeros(1, dtype=np.int32)).rows().lists is not None
