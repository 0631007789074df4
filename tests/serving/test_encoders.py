"""Requests that change a model's limits or its instruction share what is large: its tokenizer."""

import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rankmill.errors import ModelError
from rankmill.scoring.engines.choose import concrete
from rankmill.scoring.load import ModelSource, check_model, load_encoder
from rankmill.scoring.options import ScorerOptions
from rankmill.serving.backend import ModelInfo
from rankmill.serving.encoders import Encoders
from rankmill.serving.request import RerankRequest
from rankmill.serving.request_error import Kind, RequestError
from tests.scoring.tiny_embedders import save_bi_encoder, save_pylate
from tests.scoring.tiny_llms import save_tiny_llm
from tests.tiny_models import CORPUS, save_tiny_model

QUERY = "How do I sort a list of numbers?"
VARIANTS = 30
KINDS: dict[str, Callable[[Path], Any]] = {
    "cross-encoder": lambda folder: save_tiny_model(folder, "xlm-roberta"),
    "language-model": lambda folder: save_tiny_llm(folder, "qwen3"),
    "late-interaction": save_pylate,
    "bi-encoder": save_bi_encoder,
}


def served(folder: Path, **settings: Any) -> ModelInfo:
    options = concrete(ScorerOptions(model=str(folder), device="cpu", precision="float32", threads=1, **settings))
    return ModelInfo(name="tiny", card=check_model(options), options=options, default=True)


def asking(**wishes: Any) -> RerankRequest:
    return RerankRequest(queries=(QUERY,), documents=CORPUS, **wishes)


@pytest.mark.parametrize("kind", KINDS)
def test_variants_of_a_model_share_its_tokenizer_and_are_right(kind: str, tmp_path: Path) -> None:
    KINDS[kind](tmp_path / "model")
    model = served(tmp_path / "model")
    encoders = Encoders([model], variants=2 * VARIANTS)
    changed: list[tuple[RerankRequest, ScorerOptions]] = [
        (asking(max_document_tokens=most), replace(model.options, max_document_tokens=most))
        for most in range(1, VARIANTS + 1)
    ]
    if kind == "language-model":
        changed += [
            (asking(instruction=text), replace(model.options, instruction=text))
            for text in (f"Judge by rule {number}." for number in range(VARIANTS))
        ]
    found = [encoders.find(model, request) for request, _ in changed]
    assert len({id(encoder) for encoder in found}) == len(changed)
    assert len({id(encoder._tokenizer.tokenizer) for encoder in found}) == 1  # type: ignore[attr-defined]
    for encoder, (_, options) in zip(found[::7], changed[::7], strict=True):
        expected = load_encoder(options).encode([QUERY] * len(CORPUS), CORPUS)
        given = encoder.encode([QUERY] * len(CORPUS), CORPUS)
        assert given.token_ids.tolist() == expected.token_ids.tolist()
        assert given.offsets.tolist() == expected.offsets.tolist()
        assert np.array_equal(given.truncated, expected.truncated)


def test_a_known_variant_is_found_while_another_is_being_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = served(save_tiny_model(tmp_path / "model", "bert"))
    encoders = Encoders([model], variants=4)
    known = encoders.find(model, asking(max_document_tokens=3))
    read, reading, go_on = ModelSource.read, threading.Event(), threading.Event()

    def slowly(source: ModelSource, options: ScorerOptions) -> Any:
        reading.set()
        assert go_on.wait(60)
        return read(source, options)

    monkeypatch.setattr(ModelSource, "read", slowly)
    with ThreadPoolExecutor(2) as threads:
        loading = threads.submit(encoders.find, model, asking(max_document_tokens=2))
        try:
            assert reading.wait(60)
            assert threads.submit(encoders.find, model, asking(max_document_tokens=3)).result(timeout=30) is known
        finally:
            go_on.set()
        assert loading.result(timeout=60) is not known


def test_what_a_model_cannot_do_is_the_requests_fault_and_what_is_kept_is_bounded(tmp_path: Path) -> None:
    model = served(save_tiny_model(tmp_path / "model", "bert"))
    encoders = Encoders([model], variants=2)
    with pytest.raises(RequestError, match="cannot be used with what the request sets: instruction") as caught:
        encoders.find(model, asking(instruction="Judge."))
    assert caught.value.kind is Kind.INVALID
    first = encoders.find(model, asking(max_document_tokens=1))
    assert encoders.find(model, asking(max_document_tokens=1)) is first
    for most in (2, 3):
        encoders.find(model, asking(max_document_tokens=most))
    assert encoders.find(model, asking(max_document_tokens=1)) is not first


@pytest.mark.parametrize("kind", KINDS)
def test_a_tokenizer_of_other_files_than_were_deployed_is_not_used(kind: str, tmp_path: Path) -> None:
    """Its tokens would get scores by the weights of the version that runs, and nobody would see it."""
    KINDS[kind](tmp_path / "model")
    model = served(tmp_path / "model")
    encoders = Encoders([], variants=2)
    file = next((tmp_path / "model").rglob("tokenizer.json"))
    replaced = {"type": "Replace", "pattern": {"String": "sort"}, "content": "list"}
    file.write_text(json.dumps(json.loads(file.read_text()) | {"normalizer": replaced}))
    with pytest.raises(ModelError, match="their files differ"):
        Encoders([model], variants=2)
    for request in (asking(), asking(max_document_tokens=3)):
        with pytest.raises(RequestError, match="are not those of the version that runs") as caught:
            encoders.find(model, request)
        assert caught.value.kind is Kind.UNAVAILABLE
