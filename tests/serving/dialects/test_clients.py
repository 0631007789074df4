"""Recorded bodies of real clients become the right request, and the answer holds what each client reads."""

import json
from dataclasses import replace

import jsonschema
import pytest

from rankmill.serving.dialects.routes import choose
from rankmill.serving.request import RerankRequest
from tests.serving.dialects.answers import result_of
from tests.serving.dialects.recorded import DOCUMENTS, LOGITS, QUERY, RECORDED, Recorded


@pytest.mark.parametrize("recorded", RECORDED, ids=lambda recorded: recorded.client)
def test_a_recorded_body_is_understood_and_its_client_gets_what_it_reads(recorded: Recorded) -> None:
    dialect = choose(recorded.path, recorded.body)
    if recorded.dialect:
        assert dialect.name == recorded.dialect

    request = dialect.parse(recorded.body, recorded.parameters)

    expected = RerankRequest(queries=(QUERY,), documents=tuple(DOCUMENTS))
    assert request == replace(expected, **recorded.asks)
    answer = json.loads(json.dumps(dialect.render(recorded.body, request, result_of(request, LOGITS))))
    assert recorded.reads(answer) == recorded.gets


@pytest.mark.parametrize("recorded", RECORDED, ids=lambda recorded: recorded.client)
def test_an_answer_is_exactly_what_openapi_says(recorded: Recorded) -> None:
    dialect = choose(recorded.path, recorded.body)
    request = dialect.parse(recorded.body, recorded.parameters)
    answer = json.loads(json.dumps(dialect.render(recorded.body, request, result_of(request, LOGITS))))

    checked = dialect.response_model.model_validate_json(json.dumps(answer), strict=True)

    assert checked.model_dump(mode="json", exclude_unset=True) == answer
    assert '"document": null' not in json.dumps(answer)  # LiteLLM fails on it


@pytest.mark.parametrize("recorded", RECORDED, ids=lambda recorded: recorded.client)
def test_a_body_is_valid_by_the_schema_that_openapi_shows(recorded: Recorded) -> None:
    schema = choose(recorded.path, recorded.body).request_model.model_json_schema()

    jsonschema.validate(recorded.body, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({}, schema)
