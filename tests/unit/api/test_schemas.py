"""What a body may say: its bounds, one below and one above each, on the models and through HTTP."""

from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from app.api.openai_schemas import MESSAGES_MAX, ChatCompletionBody
from app.api.schemas import ChatBody, GenerateBody
from tests.support.server import AppServer

NAN = float("nan")
GENERATE: dict[str, Any] = {"prompt": "Say it."}
CHAT: dict[str, Any] = {"message": "Say it."}
OPENAI: dict[str, Any] = {"model": "simulator", "messages": [{"role": "user", "content": "Say it."}]}
MODELS = [(GenerateBody, GENERATE), (ChatBody, CHAT), (ChatCompletionBody, OPENAI)]
EACH_MODEL = pytest.mark.parametrize(("model", "least"), MODELS, ids=[model.__name__ for model, _ in MODELS])


def fits(model: type[BaseModel], body: dict[str, Any]) -> bool:
    try:
        model.model_validate(body)
    except ValidationError:
        return False
    return True


@EACH_MODEL
def test_the_least_body_is_enough(model: type[BaseModel], least: dict[str, Any]) -> None:
    assert fits(model, least)
    for name in least:
        assert not fits(model, {key: value for key, value in least.items() if key != name})


@EACH_MODEL
@pytest.mark.parametrize(
    ("field", "value", "allowed"),
    [
        ("max_tokens", 0, False),
        ("max_tokens", 1, True),
        ("max_tokens", 32_768, True),
        ("max_tokens", 32_769, False),
        ("max_tokens", -1, False),
        ("max_tokens", 1.5, False),
        ("max_tokens", None, True),
        ("temperature", -0.01, False),
        ("temperature", 0, True),
        ("temperature", 2, True),
        ("temperature", 2.01, False),
        ("temperature", NAN, False),
        ("temperature", float("inf"), False),
        ("temperature", None, True),
        ("stream", True, True),
        ("stream", None, True),
        ("stream", "perhaps", False),
        ("model", "", False),
        ("model", "m" * 200, True),
        ("model", "m" * 201, False),
        ("simulator", {}, True),
        ("simulator", None, True),
        ("simulator", {"seeed": 1}, False),
        ("simulator", {"tokens": -1}, False),
        ("simulator", {"tokens": 32_769}, False),
        ("simulator", {"jitter": 1.01}, False),
        ("simulator", {"jitter": NAN}, False),
        ("simulator", {"first_token_ms": 600_001}, False),
        ("simulator", {"tokens_per_second": 0}, True),
        ("simulator", {"tokens_per_second": 1_000_001}, False),
        ("simulator", {"seed": 2**53 + 1}, False),
        ("simulator", {"fault": {"kind": "die", "at_token": 3}}, True),
        ("simulator", {"fault": {"kind": "explode"}}, False),
        ("simulator", {"fault": {"at_token": 3}}, False),
    ],
)
def test_a_field_has_its_bounds(
    model: type[BaseModel], least: dict[str, Any], field: str, value: object, allowed: bool
) -> None:
    assert fits(model, least | {field: value}) is allowed


@pytest.mark.parametrize(("characters", "allowed"), [(0, False), (1, True), (100_000, True), (100_001, False)])
@pytest.mark.parametrize("character", ["a", "🌊"])
def test_a_prompt_has_1_to_100000_characters(characters: int, allowed: bool, character: str) -> None:
    text = character * characters
    assert fits(GenerateBody, {"prompt": text}) is allowed
    assert fits(ChatBody, {"message": text}) is allowed
    if characters:
        assert fits(ChatCompletionBody, OPENAI | {"messages": [{"role": "user", "content": text}]}) is allowed
        part = {"role": "user", "content": [{"type": "text", "text": text}]}
        assert fits(ChatCompletionBody, OPENAI | {"messages": [part]}) is allowed


@pytest.mark.parametrize(("model", "least"), MODELS[:2])
def test_a_native_body_has_no_unknown_fields(model: type[BaseModel], least: dict[str, Any]) -> None:
    """A misspelt bound would otherwise hold nothing."""
    assert not fits(model, least | {"max_token": 5})


def test_an_openai_body_may_have_any_field_besides() -> None:
    body = ChatCompletionBody.model_validate(OPENAI | {"top_p": 0.5, "logit_bias": {"5": 1}})
    assert body.model_extra == {"top_p": 0.5, "logit_bias": {"5": 1}}


@pytest.mark.parametrize(("count", "allowed"), [(0, False), (1, True), (MESSAGES_MAX, True), (MESSAGES_MAX + 1, False)])
def test_messages_are_bounded_in_number(count: int, allowed: bool) -> None:
    messages = [{"role": "user", "content": "a"}] * count
    assert fits(ChatCompletionBody, OPENAI | {"messages": messages}) is allowed


@pytest.mark.parametrize(("n", "allowed"), [(None, True), (1, True), (2, False), (0, False)])
def test_there_is_one_answer(n: int | None, allowed: bool) -> None:
    assert fits(ChatCompletionBody, OPENAI | {"n": n}) is allowed


@pytest.mark.parametrize("role", ["system", "developer", "user", "assistant", "tool", "function"])
def test_every_role_of_openai_is_known(role: str) -> None:
    assert fits(ChatCompletionBody, OPENAI | {"messages": [{"role": role, "content": None, "name": "x"}]})
    assert not fits(ChatCompletionBody, OPENAI | {"messages": [{"role": f"{role}s", "content": "x"}]})


@pytest.mark.parametrize(
    ("name", "allowed"),
    [("a.B-1_", True), ("x" * 64, True), ("x" * 65, False), ("", False), ("a b", False), ("a\n", False)],
)
def test_a_conversations_name_is_harmless(name: str, allowed: bool) -> None:
    assert fits(ChatBody, CHAT | {"conversation_id": name}) is allowed


@pytest.mark.parametrize(
    ("path", "body", "status", "field"),
    [
        ("/api/v1/generate", {"prompt": ""}, 422, "prompt"),
        ("/api/v1/generate", {"prompt": "a" * 100_001}, 422, "prompt"),
        ("/api/v1/generate", GENERATE | {"max_tokens": 0}, 422, "max_tokens"),
        ("/api/v1/generate", GENERATE | {"max_token": 1}, 422, "max_token"),
        ("/api/v1/generate", GENERATE | {"simulator": {"fault": {"kind": "x"}}}, 422, "simulator.fault.kind"),
        ("/api/v1/chat", {"message": "a", "temperature": 3}, 422, "temperature"),
        ("/v1/chat/completions", OPENAI | {"n": 2}, 400, "n"),
        ("/v1/chat/completions", OPENAI | {"messages": [{"role": "x"}]}, 400, "messages.0.role"),
    ],
)
def test_a_body_that_does_not_fit_is_told_which_field(
    server: AppServer, path: str, body: dict[str, Any], status: int, field: str
) -> None:
    answer = server.post(path, body)
    error = answer.json["error"]
    assert (answer.status, error["code"]) == (status, "invalid_request")
    assert error["message"].startswith(f"{field}: ")
    if path.startswith("/v1/"):
        assert (error["type"], error["param"]) == ("invalid_request_error", field)
    else:
        assert error["details"][0]["field"] == field
        assert error["retryable"] is False
    assert error["request_id"] == answer.headers["x-request-id"]


def test_the_longest_prompt_is_answered(server: AppServer) -> None:
    answer = server.post("/api/v1/generate", {"prompt": "é" * 100_000, "simulator": {"tokens": 1, "first_token_ms": 0}})
    assert (answer.status, len(answer.json["prompt"])) == (200, 100_000)


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b"null", b"\xff\xfe{}", b'{"prompt": "a"} x', b"[" * 100_000, b'{"prompt": %s}' % (b"9" * 5000)],
    ids=lambda body: repr(body[:20]),
)
@pytest.mark.parametrize("path", ["/api/v1/generate", "/v1/chat/completions"])
def test_what_is_no_json_object_is_refused(server: AppServer, path: str, body: bytes) -> None:
    answer = server.post(path, body)
    assert answer.status in {400, 422}
    assert answer.json["error"]["code"] == "invalid_request"


@pytest.mark.parametrize(
    "extra", [b'"seed": 1180591620717411303424', b'"user": ["\\ud800"]', b'"metadata": {"a": {"b": "\\udfff"}}']
)
def test_what_could_not_be_passed_on_is_refused(server: AppServer, extra: bytes) -> None:
    """It would fail in the log's packing or in the upstream's request, as a defect of ours."""
    body = b'{"model": "simulator", "messages": [{"role": "user", "content": "a"}], %b}' % extra
    answer = server.post("/v1/chat/completions", body)
    assert (answer.status, answer.json["error"]["code"]) == (400, "invalid_request")
