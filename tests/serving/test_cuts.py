"""A request that limits queries and documents and wants nothing else cut: refused only where the model's limit cuts."""

from typing import Any

import pytest

from rankmill.serving.backend import ModelInfo
from rankmill.serving.dialects.vllm_rerank import VLLM_RERANK
from rankmill.serving.encoders import Encoders
from rankmill.serving.online import Prepared, prepare
from rankmill.serving.request_error import Kind, RequestError
from rankmill.settings.gateway import GatewaySettings
from tests.serving.test_encoders import KINDS, served

LONG = "a " * 3000
SHORT = "a"
MANY = GatewaySettings(max_query_characters=32_000)


@pytest.fixture(scope="module", params=KINDS)
def served_kind(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("model")
    KINDS[request.param](folder / "model")
    model = served(folder / "model", max_length=96)
    return request.param, model, Encoders([model], variants=64)


def prepared(model: ModelInfo, encoders: Encoders, query: str, *documents: str, **limits: int) -> Prepared:
    return prepare(VLLM_RERANK.parse(body(query, *documents, **limits), {}), model, encoders, MANY)


def body(query: str, *documents: str, **limits: int) -> dict[str, Any]:
    return {"query": query, "documents": list(documents), "truncate_prompt_tokens": None, **limits}


def refused(model: ModelInfo, encoders: Encoders, query: str, *documents: str, **limits: int) -> str:
    with pytest.raises(RequestError) as raised:
        prepared(model, encoders, query, *documents, **limits)
    assert raised.value.kind is Kind.TOO_LONG
    return raised.value.message


def test_what_a_wish_cuts_is_no_pair_that_is_too_long(served_kind: Any) -> None:
    _, model, encoders = served_kind
    assert "1 of 2 pairs" in refused(model, encoders, SHORT, SHORT, LONG)
    found = prepared(model, encoders, SHORT, SHORT, LONG, max_tokens_per_doc=5)
    assert found.pairs.truncated.tolist() == [False, True]
    found = prepared(model, encoders, LONG, SHORT, max_tokens_per_query=5)
    assert found.pairs.truncated.tolist() == [True]
    found = prepared(model, encoders, LONG, LONG, max_tokens_per_query=5, max_tokens_per_doc=5)
    assert found.pairs.truncated.tolist() == [True]


def test_the_other_text_must_still_fit(served_kind: Any) -> None:
    _, model, encoders = served_kind
    assert "1 of 2 pairs" in refused(model, encoders, SHORT, SHORT, LONG, max_tokens_per_query=2)
    assert "2 of 2 pairs" in refused(model, encoders, LONG, SHORT, LONG, max_tokens_per_doc=5)


def test_a_pair_that_just_fits_after_its_wish_is_scored_and_one_token_more_is_refused(served_kind: Any) -> None:
    kind, model, encoders = served_kind
    least, most = 1, model.card.max_length
    while most - least > 1:  # the largest wish that is not refused
        wish = (least + most) // 2
        try:
            prepared(model, encoders, SHORT, LONG, max_tokens_per_doc=wish)
        except RequestError:
            most = wish
        else:
            least = wish
    fits = prepared(model, encoders, SHORT, LONG, max_tokens_per_doc=least)
    if kind in {"cross-encoder", "language-model"}:
        assert fits.pairs.lengths.tolist() == [model.card.max_length]
        shorter = prepared(model, encoders, SHORT, LONG, max_tokens_per_doc=least - 1)
        assert shorter.pairs.lengths.tolist() == [model.card.max_length - 1]
    else:  # a document has the model's length alone, and no wish below that is too long
        assert least == model.card.max_length - 1
