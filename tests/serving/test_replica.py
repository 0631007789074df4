"""A scorer with its batcher and cache, against the bare scorer."""

import asyncio
import threading
from collections.abc import Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rankmill.errors import ModelError, NonFiniteScoreError
from rankmill.scoring.chunks import score
from rankmill.scoring.load import check_model, load_scorer
from rankmill.scoring.options import ScorerOptions
from rankmill.scoring.scorer import Scorer
from rankmill.serving.backend import ModelInfo
from rankmill.serving.local_backend import LocalBackend
from rankmill.serving.replica import Replica, load_checked
from rankmill.serving.request_error import Kind, RequestError
from rankmill.types import EncodedPairs
from tests.tiny_models import CORPUS, save_tiny_model

LONG = 60.0


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("model"), "bert")


@pytest.fixture(scope="module")
def options(folder: Path) -> ScorerOptions:
    return ScorerOptions(str(folder), device="cpu", precision="float32", threads=1, batch_tokens=256)


@pytest.fixture(scope="module")
def scorer(options: ScorerOptions) -> Scorer:
    return load_scorer(options)


def info_of(options: ScorerOptions, name: str = "tiny") -> ModelInfo:
    return ModelInfo(name=name, card=check_model(options), options=options, default=True)


def pairs_of(scorer: Scorer, count: int) -> EncodedPairs:
    texts = [" ".join(CORPUS[(i + j) % len(CORPUS)] for j in range(i % 4)) for i in range(count)]
    return scorer.encode([CORPUS[i % 2] for i in range(count)], texts)


def run(test: Coroutine[Any, Any, None]) -> None:
    asyncio.run(test)


@pytest.mark.parametrize("cache_bytes", [0, 1_000_000])
def test_requests_that_share_the_scorer_get_what_they_would_get_alone(scorer: Scorer, cache_bytes: int) -> None:
    async def test() -> None:
        replica = Replica(scorer, queue_tokens=100_000, cache_bytes=cache_bytes)
        requests = [pairs_of(scorer, count) for count in (1, 40, 7, 0)]
        found = await asyncio.gather(*(replica.score(pairs, LONG) for pairs in requests))
        for pairs, scored in zip(requests, found, strict=True):
            np.testing.assert_allclose(scored.logits, scorer.logits(pairs), atol=1e-5)
            assert scored.best is None
        assert replica.load()[0] == 0
        await replica.close()

    run(test())


def test_known_pairs_are_not_computed_again(scorer: Scorer) -> None:
    async def test() -> None:
        replica = Replica(scorer, queue_tokens=100_000, cache_bytes=1_000_000)
        texts = list(CORPUS)
        first = await replica.score(scorer.encode(["a query"] * 4, texts[:4]), LONG)
        second = await replica.score(scorer.encode(["a query"] * 6, texts), LONG)
        other = await replica.score(scorer.encode(["another query"] * 6, texts), LONG)
        assert (first.cached, second.cached, other.cached) == (0, 4, 0)
        np.testing.assert_array_equal(second.logits[:4], first.logits)
        np.testing.assert_allclose(second.logits, scorer.logits(scorer.encode(["a query"] * 6, texts)), atol=1e-5)
        assert [scored.work.pairs for scored in (first, second, other)] == [4, 2, 6]
        await replica.close()

    run(test())


@pytest.mark.parametrize("cache_bytes", [0, 1_000_000])
def test_long_documents_in_chunks(options: ScorerOptions, cache_bytes: int) -> None:
    async def test() -> None:
        scorer = load_scorer(replace(options, long_documents="chunk", max_length=48))
        pairs = scorer.encode([CORPUS[0]] * 3, ["short", " ".join(CORPUS * 3), CORPUS[1]])
        assert pairs.chunks is not None
        assert pairs.chunks.counts.max() > 2
        expected = score(scorer, pairs)
        assert expected.best is not None
        replica = Replica(scorer, queue_tokens=100_000, cache_bytes=cache_bytes)
        for _ in range(2):
            found = await replica.score(pairs, LONG)
            np.testing.assert_allclose(found.logits, expected.logits, atol=1e-5)
            np.testing.assert_array_equal(found.best, expected.best)
        await replica.close()

    run(test())


class Broken:
    """A scorer whose device has failed."""

    fingerprint = "0" * 64
    activation = "identity"
    listwise = False

    def __init__(self, scorer: Scorer) -> None:
        self.encode = scorer.encode

    def logits(self, pairs: EncodedPairs) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
        raise NonFiniteScoreError("All of them are NaN.", range(len(pairs)))


def test_the_health_check_runs_the_model(scorer: Scorer) -> None:
    async def test() -> None:
        healthy = Replica(scorer, queue_tokens=1, cache_bytes=0)
        await healthy.check()
        broken = Replica(Broken(scorer), queue_tokens=1, cache_bytes=1_000_000)
        with pytest.raises(NonFiniteScoreError):
            await broken.check()
        with pytest.raises(RequestError) as raised:
            await broken.score(pairs_of(scorer, 2), LONG)
        assert raised.value.kind is Kind.INTERNAL
        await Replica(Broken(scorer), queue_tokens=1, cache_bytes=0, canary=False).check()

    run(test())


@pytest.mark.parametrize("works", [False, True])
def test_a_long_call_is_no_illness_while_its_forward_passes_end(
    scorer: Scorer,
    monkeypatch: pytest.MonkeyPatch,
    works: bool,  # noqa: FBT001
) -> None:
    """A list cannot be interrupted; Ray Serve kills a replica whose checks wait for too long."""

    async def test() -> None:
        over, began = threading.Event(), threading.Event()
        real = scorer.logits

        def long_call(pairs: EncodedPairs) -> Any:
            began.set()
            while not over.wait(0.05):
                if works:
                    scorer.after_pass()  # type: ignore[attr-defined]
            return real(pairs)

        monkeypatch.setattr(scorer, "logits", long_call)
        replica = Replica(scorer, queue_tokens=100_000, cache_bytes=0)
        replica.check_seconds = 0.5
        request = asyncio.create_task(replica.score(pairs_of(scorer, 3), LONG))
        assert await asyncio.to_thread(began.wait, 30)
        checking = asyncio.create_task(replica.check())
        done, _ = await asyncio.wait([checking], timeout=2.0)
        assert bool(done) is works
        over.set()
        await asyncio.gather(checking, request)
        await replica.close()

    run(test())


def test_the_load_that_a_replica_reports(scorer: Scorer) -> None:
    async def test() -> None:
        replica = Replica(scorer, queue_tokens=10**6, cache_bytes=0)
        assert replica.load() == (0.0, 0.0)
        await replica.score(pairs_of(scorer, 20), LONG)
        queued_seconds, busy = replica.load()
        assert queued_seconds == 0.0
        assert 0.0 < busy <= 1.0
        waiting = asyncio.create_task(replica.score(pairs_of(scorer, 200), LONG))
        await asyncio.sleep(0)
        assert replica.load()[0] > 0.0
        await waiting
        await replica.close()

    run(test())


def test_a_model_with_other_files_than_it_was_deployed_with_is_refused(options: ScorerOptions, tmp_path: Path) -> None:
    info = info_of(options)
    other = replace(info, options=replace(options, model=str(save_tiny_model(tmp_path, "bert", seed=1))))
    with pytest.raises(ModelError, match="files differ"):
        load_checked(other)


def test_a_model_that_fails_its_self_test_is_refused(options: ScorerOptions, monkeypatch: pytest.MonkeyPatch) -> None:
    info = info_of(options)
    scorer = load_checked(info)
    logits = type(scorer).logits

    def depends_on_the_batch(self: Any, pairs: EncodedPairs) -> Any:
        return logits(self, pairs) + len(pairs)

    monkeypatch.setattr(type(scorer), "logits", depends_on_the_batch)
    with pytest.raises(ModelError, match=r"self-test.*batches"):
        load_checked(info)


def test_the_local_backend(options: ScorerOptions, scorer: Scorer) -> None:
    async def test() -> None:
        info = info_of(options)
        backend = LocalBackend.load({"tiny": info}, queue_tokens=100_000, cache_bytes=0)
        assert list(backend.models()) == ["tiny"]
        assert await backend.ready("tiny")
        pairs = pairs_of(scorer, 9)
        found = await backend.score(info, pairs, LONG)
        np.testing.assert_allclose(found.logits, scorer.logits(pairs), atol=1e-5)
        with pytest.raises(RequestError) as raised:
            await backend.score(info, pairs, 0.0)
        assert raised.value.kind is Kind.DEADLINE
        assert found.work.pairs == 9
        await backend.close()

    run(test())
