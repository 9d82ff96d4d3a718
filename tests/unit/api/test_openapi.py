"""What OpenAPI says of the routes is what they do."""

import json
from collections.abc import Iterator
from typing import Annotated, Any

import pydantic
import pytest
from jsonschema import Draft202012Validator

import app.api.anthropic_schemas
import app.api.openai_schemas
import app.api.responses_schemas
import app.api.schemas
import app.api.schemas_v2
import app.api.task_schemas
from app.api.openapi import ANTHROPIC_STREAM, NATIVE_STREAM, OPENAI_STREAM, RESPONSES_STREAM, TASK_STREAM
from tests.support.server import AppServer
from tests.support.sse import decode

STREAMING = {
    ("post", "/api/v1/generate"),
    ("post", "/api/v1/chat"),
    ("get", "/api/v1/stream"),
    ("get", "/api/v1/streams/{stream_id}"),
    ("post", "/api/v2/generate"),
    ("post", "/api/v2/chat"),
    ("get", "/api/v2/stream"),
    ("get", "/api/v2/streams/{stream_id}"),
    ("get", "/api/v2/tasks/{task_id}/events"),
    ("post", "/v1/chat/completions"),
    ("post", "/v1/messages"),
    ("post", "/v1/responses"),
    ("get", "/v1/responses/{response_id}"),
    ("get", "/api/v1/tasks/{task_id}/events"),
}
# A surface's errors and its example of a stream, by the beginning of its paths; the first that fits.
SURFACES = {
    "/v1/messages": ("AnthropicErrorAnswer", ANTHROPIC_STREAM),
    "/v1/responses": ("OpenAIErrorAnswer", RESPONSES_STREAM),
    "/v1/": ("OpenAIErrorAnswer", OPENAI_STREAM),
    "/api/v1/tasks": ("ErrorAnswer", TASK_STREAM),
    "/api/v2/tasks": ("ErrorAnswer", TASK_STREAM),
    "/": ("ErrorAnswer", NATIVE_STREAM),
}
# OAuth has a shape of its own for errors.
TOKEN_PATHS = {"/api/v1/auth/token", "/api/v2/auth/token"}
ALWAYS_STREAMING = {
    ("get", f"/api/{version}/{path}")
    for version in ("v1", "v2")
    for path in ("stream", "streams/{stream_id}", "tasks/{task_id}/events")
}


@pytest.fixture(scope="module")
def api(server: AppServer) -> dict[str, Any]:
    found: dict[str, Any] = server.get("/openapi.json").json
    return found


def surface(path: str) -> tuple[str, str]:
    return next(found for prefix, found in SURFACES.items() if path.startswith(prefix))


def operations(api: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, item in api["paths"].items():
        for method, operation in item.items():
            yield method, path, operation


def models() -> dict[str, type[pydantic.BaseModel]]:
    modules = (
        app.api.schemas,
        app.api.schemas_v2,
        app.api.task_schemas,
        app.api.openai_schemas,
        app.api.responses_schemas,
        app.api.anthropic_schemas,
    )
    found = {name: each for module in modules for name, each in vars(module).items()}
    return {
        name: each for name, each in found.items() if isinstance(each, type) and issubclass(each, pydantic.BaseModel)
    }


def test_an_event_stream_is_declared_where_there_is_one_and_nowhere_else(api: dict[str, Any]) -> None:
    declared = {
        (method, path)
        for method, path, operation in operations(api)
        if "text/event-stream" in operation["responses"].get("200", {}).get("content", {})
    }
    assert declared == STREAMING


def test_json_is_declared_where_there_is_some(api: dict[str, Any]) -> None:
    for method, path, operation in operations(api):
        success = operation["responses"].get("200")
        if success:
            assert ("application/json" in success["content"]) == ((method, path) not in ALWAYS_STREAMING)


def test_every_error_is_declared_in_its_surfaces_shape(api: dict[str, Any]) -> None:
    for method, path, operation in operations(api):
        for status, answer in operation["responses"].items():
            for content in answer.get("content", {}).values():
                if status >= "400" and path not in TOKEN_PATHS:
                    expected, _ = surface(path)
                    assert content["schema"]["$ref"].endswith(f"/{expected}"), (method, path, status)


def test_every_operation_is_described(api: dict[str, Any]) -> None:
    for method, path, operation in operations(api):
        assert operation.get("description"), (method, path)


def test_every_field_that_goes_in_or_comes_out_is_described(api: dict[str, Any]) -> None:
    schemas = {name: schema for name, schema in api["components"]["schemas"].items() if "properties" in schema}
    assert {"ChatCompletionBody", "ChatCompletion", "MessagesBody", "GenerateAnswerV2", "Health"} <= schemas.keys()
    for name, schema in schemas.items():
        for field, told in schema["properties"].items():
            told_of = [told, *told.get("anyOf", [])]
            assert any("description" in each or "$ref" in each for each in told_of), (name, field)


def test_the_bounds_are_published(api: dict[str, Any]) -> None:
    generate = api["components"]["schemas"]["GenerateBody"]["properties"]
    assert (generate["prompt"]["minLength"], generate["prompt"]["maxLength"]) == (1, 100_000)
    assert '"maximum": 32768' in json.dumps(generate["max_tokens"])
    assert '"maximum": 2' in json.dumps(generate["temperature"])


def test_the_example_of_an_answer_fits_its_schema(api: dict[str, Any]) -> None:
    checked = 0
    for method, path, operation in operations(api):
        success = next(answer for status, answer in operation["responses"].items() if status.startswith("2"))
        if "application/json" in success.get("content", {}):
            content = success["content"]["application/json"]
            schema = content["schema"] | {"components": api["components"]}
            errors = [error.message for error in Draft202012Validator(schema).iter_errors(content["example"])]
            assert not errors, (method, path)
            checked += 1
    assert checked >= 25


def test_examples_of_fields_fit_their_own_fields(api: dict[str, Any]) -> None:
    checked = 0
    for name, model in models().items():
        for field, info in model.model_fields.items():
            for example in info.examples or []:
                field_type: Any = Annotated[info.annotation, info]
                pydantic.TypeAdapter(field_type).validate_python(example)
                checked += 1
                assert name in api["components"]["schemas"], f"{name}.{field} is published nowhere"
    assert checked >= 15


def test_the_examples_of_streams_are_streams(api: dict[str, Any]) -> None:
    *_, done = decode(NATIVE_STREAM.encode())
    assert [frame.event for frame in decode(NATIVE_STREAM.encode())] == ["token", "done"]
    assert done.json()["metadata"]["stream_id"] in done.id
    assert decode(OPENAI_STREAM.encode())[-1].data == "[DONE]"
    assert decode(RESPONSES_STREAM.encode())[-1].event == "response.completed"
    assert decode(ANTHROPIC_STREAM.encode())[-1].event == "message_stop"
    for method, path in STREAMING:
        example = api["paths"][path][method]["responses"]["200"]["content"]["text/event-stream"]["example"]
        assert example == surface(path)[1]


def test_an_answer_has_the_shape_that_is_published(server: AppServer) -> None:
    quick = {"max_tokens": 2, "simulator": {"first_token_ms": 0}}
    native = server.post("/api/v1/generate", {"prompt": "Say it."} | quick)
    app.api.schemas.GenerateAnswer.model_validate(native.json)
    asked = {"model": "simulator", "messages": [{"role": "user", "content": "Say it."}]}
    openai = server.post("/v1/chat/completions", asked | quick)
    app.api.openai_schemas.ChatCompletion.model_validate(openai.json)
    anthropic = server.post("/v1/messages", asked | quick)
    app.api.anthropic_schemas.MessageAnswer.model_validate(anthropic.json)
    app.api.anthropic_schemas.AnthropicErrorAnswer.model_validate(server.post("/v1/messages", {}).json)
    app.api.schemas.ErrorAnswer.model_validate(server.post("/api/v1/generate", {}).json)
    app.api.openai_schemas.OpenAIErrorAnswer.model_validate(server.post("/v1/chat/completions", {}).json)
    app.api.schemas.Health.model_validate(server.get("/health").json)
    app.api.openai_schemas.ModelList.model_validate(server.get("/v1/models").json)
    app.api.openai_schemas.ModelCard.model_validate(server.get("/v1/models/simulator").json)
