"""The native routes: who gets a stream and who a document, and what both say."""

from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from tests.support.api_keys import ApiKeys
from tests.support.server import AppServer, HTTPAnswer
from tests.support.sse import decode

SHORT = {"tokens": 3, "first_token_ms": 0, "tokens_per_second": 0}


def ask(
    server: AppServer, body: dict[str, Any] | None = None, query: str = "", accept: str | None = None
) -> HTTPAnswer:
    headers = {"Accept": accept} if accept else {}
    return server.post(f"/api/v1/generate{query}", {"prompt": "Say it.", "simulator": SHORT} | (body or {}), headers)


def is_stream(answer: HTTPAnswer) -> bool:
    assert answer.status == 200
    return answer.headers["content-type"].startswith("text/event-stream")


@pytest.mark.parametrize("body", [True, False, None])
@pytest.mark.parametrize("query", [True, False, None])
@pytest.mark.parametrize("accept", ["text/event-stream", "application/json, text/event-stream;q=0.9", "*/*", None])
def test_the_body_decides_before_the_query_and_the_query_before_accept(
    server: AppServer, body: bool | None, query: bool | None, accept: str | None
) -> None:
    said = {} if body is None else {"stream": body}
    asked = "" if query is None else f"?stream={str(query).lower()}"
    by_accept = accept is not None and "text/event-stream" in accept
    expected = body if body is not None else query if query is not None else by_accept
    assert is_stream(ask(server, said, asked, accept)) is expected


def test_a_document_says_everything_about_its_answer(server: AppServer) -> None:
    answer = ask(server).json
    assert answer.keys() == {
        "success", "response", "prompt", "model", "timestamp", "tokens_used", "stream_id", "finish_reason", "usage",
    }  # fmt: skip
    assert (answer["success"], answer["prompt"], answer["model"]) == (True, "Say it.", "simulator")
    assert answer["usage"] == {"input_tokens": 2, "output_tokens": 3}
    assert (answer["tokens_used"], answer["finish_reason"]) == (5, "stop")


def test_stream_and_document_say_the_same(server: AppServer) -> None:
    document, stream = ask(server), ask(server, {"stream": True})
    *tokens, done = decode(stream.body)
    assert "".join(token.json()["token"] for token in tokens) == document.json["response"]
    assert [token.json()["index"] for token in tokens] == [1, 2, 3]
    assert done.json()["usage"] == document.json["usage"]
    assert done.json()["metadata"] == {"stream_id": stream.headers["x-stream-id"], "model": "simulator"}
    assert document.headers["x-stream-id"] == document.json["stream_id"]


@pytest.mark.parametrize("name", ["x-request-id", "x-stream-id"])
def test_every_answer_that_generates_names_its_request_and_stream(server: AppServer, name: str) -> None:
    failing = {"simulator": SHORT | {"fault": {"kind": "error", "at_token": 0}}}
    for answer in (
        ask(server),
        ask(server, {"stream": True}),
        ask(server, failing),
        ask(server, {"stream": True} | failing),
    ):
        assert len(answer.headers[name]) >= 22


def test_chat_echoes_its_conversation(server: AppServer) -> None:
    body = {"message": "Say it.", "conversation_id": "c-1", "simulator": SHORT}
    assert server.post("/api/v1/chat", body).json["conversation_id"] == "c-1"
    assert "conversation_id" not in server.post("/api/v1/chat", {"message": "Say it.", "simulator": SHORT}).json


def test_an_event_source_gets_the_same_by_get(server: AppServer) -> None:
    query = urlencode({"prompt": "Say it.", "simulator": '{"tokens": 3, "first_token_ms": 0}'})
    answer = server.get(f"/api/v1/stream?{query}")
    assert is_stream(answer)
    *tokens, _ = decode(answer.body)
    assert "".join(token.json()["token"] for token in tokens) == ask(server).json["response"]


def test_each_event_source_is_told_at_once_another_moment_to_come_back(server: AppServer) -> None:
    """Those of a worker that was killed came back at one moment, three seconds later."""
    query = urlencode({"prompt": "Say it.", "simulator": '{"tokens": 1, "first_token_ms": 0}'})
    answers = [decode(server.get(f"/api/v1/stream?{query}").body) for _ in range(8)]
    waits = [frames[0].retry for frames in answers]
    assert all(wait is not None and 500 <= wait <= 3000 for wait in waits)
    assert len(set(waits)) > 4
    assert [frame.event for frame in answers[0]] == ["token", "done"]


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ({}, "prompt"),
        ({"prompt": ""}, "prompt"),
        ({"prompt": "a", "max_tokens": "0"}, "max_tokens"),
        ({"prompt": "a", "temperature": "nan"}, "temperature"),
        ({"prompt": "a", "simulator": "{"}, "simulator"),
        ({"prompt": "a", "simulator": '{"seeed": 1}'}, "simulator.seeed"),
    ],
)
def test_a_query_that_does_not_fit_is_told_which_field(server: AppServer, query: dict[str, str], field: str) -> None:
    answer = server.get(f"/api/v1/stream?{urlencode(query)}")
    assert (answer.status, answer.json["error"]["details"][0]["field"]) == (422, field)


def test_a_model_that_is_not_served_is_told(server: AppServer) -> None:
    for stream in (True, False):
        answer = ask(server, {"model": "gpt-0", "stream": stream})
        assert (answer.status, answer.json["error"]["code"]) == (404, "model_not_found")
        assert "gpt-0" in answer.json["error"]["message"]


@pytest.mark.parametrize(("method", "path", "status", "code"), [
    ("GET", "/api/v1/generate", 405, "method_not_allowed"),
    ("POST", "/api/v1/nothing", 404, "not_found"),
    ("GET", "/v1/nothing", 404, "not_found"),
])  # fmt: skip
def test_a_route_that_is_not_there_answers_in_its_surfaces_shape(
    server: AppServer, method: str, path: str, status: int, code: str
) -> None:
    answer = server.request(method, path)
    assert (answer.status, answer.json["error"]["code"]) == (status, code)
    assert answer.json["error"]["request_id"] == answer.headers["x-request-id"]
    assert ("type" in answer.json["error"]) == path.startswith("/v1/")


def test_a_failure_before_the_first_token_has_its_own_status(server: AppServer) -> None:
    for stream in (True, False):
        answer = ask(server, {"stream": stream, "simulator": SHORT | {"fault": {"kind": "error", "at_token": 0}}})
        assert (answer.status, answer.json["error"]["code"]) == (502, "upstream_error")


def test_a_failure_behind_the_first_token_is_the_streams_last_event(server: AppServer) -> None:
    answer = ask(server, {"stream": True, "simulator": SHORT | {"fault": {"kind": "die", "at_token": 2}}})
    assert is_stream(answer)
    assert [frame.event for frame in decode(answer.body)] == ["token", "token", "error"]


def test_production_takes_no_wishes_for_the_simulator(tmp_path: Path) -> None:
    keys = ApiKeys(tmp_path, acme="pro")
    with AppServer(SLUICE_ENVIRONMENT="production", WORKERS="1", **keys.environment) as server:
        answer = server.post("/api/v1/generate", {"prompt": "Say it.", "simulator": {"seed": 1}}, keys.headers("acme"))
        assert (answer.status, answer.json["error"]["code"]) == (400, "invalid_request")
        body = {"prompt": "Say it.", "max_tokens": 1}
        assert server.post("/api/v1/generate", body, keys.headers("acme")).status == 200
