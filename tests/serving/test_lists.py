"""Scorers of lists behind the endpoint: one request's documents are scored together, and never with another's."""

import asyncio
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import rankmill
from rankmill.errors import NonFiniteScoreError
from rankmill.scoring.lists import each_list
from rankmill.scoring.load import check_model
from rankmill.scoring.options import ScorerOptions
from rankmill.serving.backend import ModelInfo
from rankmill.serving.request_error import RequestError
from rankmill.serving.slices import join, take
from rankmill.serving.waiting import Waiting
from rankmill.serving.wire import narrowed, widened
from rankmill.settings.gateway import GatewaySettings
from rankmill.types import EncodedPairs
from tests.list_scorer import asked, list_scores
from tests.scoring.tiny_llms import save_tiny_lists
from tests.serving.live import Live, live
from tests.serving.test_batcher import LONG, Recorder, batcher, expected, request, run
from tests.serving.test_plugin import plugged

OPTIONS = ScorerOptions(model="python:tests.list_scorer:Lists")


@pytest.fixture
def server() -> Iterator[Live]:
    model = ModelInfo(name="lists", card=check_model(OPTIONS), options=OPTIONS, default=True)
    with live(GatewaySettings(), model) as found:
        asked.clear()
        yield found
    asked.clear()


def in_lists(lists: Sequence[Sequence[int]]) -> EncodedPairs:
    """A request with several lists, of pairs of these lengths."""
    numbers = np.repeat(np.arange(len(lists), dtype=np.int32), [len(one) for one in lists])
    return replace(request([length for one in lists for length in one]), lists=numbers)


def whole_lists(pairs: EncodedPairs) -> list[tuple[int, ...]]:
    """The first token of each pair, list by list: which request's and which of its pairs it is."""
    firsts = pairs.token_ids[pairs.offsets[:-1]]
    return [tuple(firsts[rows].tolist()) for rows in each_list(pairs)]


requests_of_lists = st.lists(
    st.lists(st.lists(st.integers(1, 30), min_size=1, max_size=8), min_size=1, max_size=5), min_size=1, max_size=6
)


@given(requests_of_lists, st.integers(1, 100))
@settings(deadline=None, max_examples=60)
def test_no_list_is_cut_and_none_is_mixed(requests: list[list[list[int]]], call_tokens: int) -> None:
    async def test() -> None:
        scorer = Recorder()
        shared = batcher(scorer, call_tokens)
        asked = [in_lists(lists) for lists in requests]
        answers = await asyncio.gather(*(shared.score(pairs, LONG) for pairs in asked))
        for pairs, (logits, _) in zip(asked, answers, strict=True):
            np.testing.assert_array_equal(logits, expected(pairs))
        scored = [one for call in scorer.calls for one in whole_lists(call)]
        assert sorted(scored) == sorted(one for pairs in asked for one in whole_lists(pairs))
        for call in scorer.calls:
            assert len(call.token_ids) <= call_tokens or len(whole_lists(call)) == 1
        await shared.close()

    run(test())


def test_a_small_request_comes_between_the_lists_of_a_large_one() -> None:
    async def test() -> None:
        scorer = Recorder()
        scorer.open.clear()
        shared = batcher(scorer)
        large = in_lists([[5, 5, 5]] * 4)
        first = asyncio.create_task(shared.score(large, LONG))
        await scorer.busy()
        small = in_lists([[4]])
        second = asyncio.create_task(shared.score(small, LONG))
        await asyncio.sleep(0)
        scorer.open.set()
        np.testing.assert_array_equal((await first)[0], expected(large))
        np.testing.assert_array_equal((await second)[0], expected(small))
        assert whole_lists(small)[0] in whole_lists(scorer.calls[1])
        await shared.close()

    run(test())


def test_a_list_without_a_score_fails_its_request_alone() -> None:
    class Picky(Recorder):
        def __call__(self, pairs: EncodedPairs) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
            super().__call__(pairs)
            bad = [i for i, length in enumerate(pairs.lengths) if length == 7]
            if bad:
                raise NonFiniteScoreError("Seven.", bad)
            return expected(pairs)

    async def test() -> None:
        shared = batcher(Picky(), 100)
        good = in_lists([[2, 3], [4]])
        answers = await asyncio.gather(
            shared.score(good, LONG), shared.score(in_lists([[7, 1], [2]]), LONG), return_exceptions=True
        )
        assert isinstance(answers[0], tuple)
        np.testing.assert_array_equal(answers[0][0], expected(good))
        assert isinstance(answers[1], RequestError)
        await shared.close()

    run(test())


def test_what_is_put_back_is_taken_again() -> None:
    pairs = in_lists([[3, 3], [2], [9, 9]])
    assert pairs.lists is not None
    waiting = Waiting(pairs.lengths, pairs.lists)
    assert (waiting.least, waiting.cost, len(waiting)) == (6, 26, 5)
    assert waiting.take(5, at_least_one=False).tolist() == []
    rows = waiting.take(9, at_least_one=False)
    assert rows.tolist() == [0, 1, 2]
    waiting.put_back(rows)
    assert waiting.take(1, at_least_one=True).tolist() == [0, 1]
    assert waiting.take(1, at_least_one=True).tolist() == [2]
    assert waiting.take(100, at_least_one=False).tolist() == [3, 4]
    assert (waiting.least, waiting.cost, len(waiting)) == (0, 0, 0)
    assert waiting.take(100, at_least_one=True).tolist() == []


def test_lists_survive_slices_and_the_wire() -> None:
    one, two = in_lists([[3, 3], [2]]), in_lists([[1], [9, 9]])
    both = join([one, two])
    assert both.lists is not None
    assert both.lists.tolist() == [0, 0, 1, 2, 3, 3]
    assert whole_lists(take(both, np.asarray([2, 4, 5]))) == [whole_lists(one)[1], whole_lists(two)[1]]
    there = widened(narrowed(both))
    np.testing.assert_array_equal(there.lists, both.lists)
    assert join([request([1]), request([2])]).lists is None


def test_a_request_is_a_list_however_many_come_at_once(server: Live) -> None:
    bodies = [
        {"query": f"query {n % 3}", "documents": [f"text {i % 40} {'word ' * 30}" for i in range(n)]}
        for n in (1, 2, 700, 3, 10, 700)
    ]
    with ThreadPoolExecutor(len(bodies)) as threads:
        answers = list(threads.map(lambda body: server.post({**body, "return_logits": True}), bodies))
    for body, answer in zip(bodies, answers, strict=True):
        assert answer.status == 200
        logits = {row["index"]: row["logit"] for row in answer.json["results"]}
        np.testing.assert_allclose(
            [logits[n] for n in range(len(body["documents"]))],
            list_scores(str(body["query"]), body["documents"]),
            rtol=1e-6,
        )
        assert all(a["logit"] >= b["logit"] for a, b in pairwise(answer.json["results"]))
    assert sorted(asked) == sorted((str(body["query"]), tuple(body["documents"])) for body in bodies)


def test_no_score_of_a_list_is_remembered(server: Live) -> None:
    for documents in (["one", "two"], ["one"], ["one", "two"]):
        answer = server.post({"query": "q", "documents": documents, "return_logits": True})
        logits = {row["index"]: row["logit"] for row in answer.json["results"]}
        np.testing.assert_allclose([logits[n] for n in range(len(documents))], list_scores("q", documents), rtol=1e-6)
    assert len(asked) == 3


def test_several_queries_in_a_request_are_several_lists(server: Live) -> None:
    body = {"text_1": ["a", "a", "b"], "text_2": ["one", "two", "one"]}
    answer = server.post(body, "/v1/score")
    expected = [*list_scores("a", ["one", "two"]), *list_scores("b", ["one"])]
    np.testing.assert_allclose([row["score"] for row in answer.json["data"]], expected, rtol=1e-6)
    assert asked == [("a", ("one", "two")), ("b", ("one",))]


def test_a_list_with_a_score_that_is_not_finite_is_no_answer(server: Live) -> None:
    answer = server.post({"query": "q", "documents": ["fine", "NAN"]})
    assert answer.status == 500
    assert server.post({"query": "q", "documents": ["fine"]}).status == 200


def test_a_model_that_reads_lists_as_tokens(tmp_path: Path) -> None:
    options = ScorerOptions(model=str(save_tiny_lists(tmp_path / "model")), precision="float32", engine="torch")
    model = ModelInfo(name="lists", card=check_model(options), options=options, default=True)
    documents = [f"water {n} " * (1 + n % 5) for n in range(40)]
    with live(GatewaySettings(), model) as server:
        answer = server.post({"query": "what is water", "documents": documents, "return_logits": True})
        shorter = server.post({"query": "what is water", "documents": documents, "max_tokens_per_doc": 4})
        refused = server.post({"query": "q", "documents": documents, "instruction": "be kind"})
    reranker = rankmill.load(str(tmp_path / "model"), precision="float32")
    ranked = reranker.rank("what is water", documents)
    assert [row["index"] for row in answer.json["results"]] == [one.index for one in ranked]
    np.testing.assert_allclose(
        [row["logit"] for row in answer.json["results"]], [one.logit for one in ranked], atol=2e-6
    )
    assert [row["index"] for row in shorter.json["results"]] != [row["index"] for row in answer.json["results"]]
    assert refused.status == 400
    assert "what the request sets: instruction" in refused.json["message"]


def test_a_plugin_of_lists_gets_a_request_for_each() -> None:
    with plugged(listwise=True) as (model, plugin), live(GatewaySettings(), model) as server:
        answer = server.post({"query": "q", "documents": ["x" * (1 + n % 7) for n in range(200)]})
        assert (answer.status, len(answer.json["results"])) == (200, 200)
        assert plugin.asked == 1
