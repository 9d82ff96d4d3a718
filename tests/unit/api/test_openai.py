"""OpenAI's surface over HTTP, byte by byte; its SDK has tests of its own."""

from typing import Any

import pytest

from tests.support.server import AppServer, HTTPAnswer
from tests.support.sse import decode

SHORT = {"tokens": 3, "first_token_ms": 0, "tokens_per_second": 0}


def ask(server: AppServer, **more: Any) -> HTTPAnswer:
    messages = [{"role": "user", "content": "Say it."}]
    body = {"model": "simulator", "messages": messages, "simulator": SHORT} | more
    return server.post("/v1/chat/completions", body)


def test_a_document_is_a_chat_completion(server: AppServer) -> None:
    answer = ask(server)
    (choice,) = answer.json["choices"]
    assert (answer.json["object"], answer.json["id"]) == (
        "chat.completion",
        f"chatcmpl-{answer.headers['x-stream-id']}",
    )
    assert (choice["finish_reason"], choice["message"]["role"]) == ("stop", "assistant")
    assert answer.json["usage"] == {"prompt_tokens": 2, "completion_tokens": 3, "total_tokens": 5}


def test_a_stream_says_the_same_in_chunks_and_ends_in_the_done_mark(server: AppServer) -> None:
    answer = ask(server, stream=True)
    *chunks, mark = decode(answer.body)
    deltas = [chunk.json()["choices"][0]["delta"] for chunk in chunks]
    assert mark.data == "[DONE]"
    assert "".join(delta.get("content", "") for delta in deltas) == ask(server).json["choices"][0]["message"]["content"]
    assert {chunk.json()["id"] for chunk in chunks} == {f"chatcmpl-{answer.headers['x-stream-id']}"}
    assert b"\nid:" not in answer.body


@pytest.mark.parametrize(
    ("options", "told"),
    [({"include_usage": True}, True), ({"include_usage": False}, False), ({}, False), (None, False)],
)
def test_a_stream_tells_its_usage_when_asked(server: AppServer, options: dict[str, bool] | None, told: bool) -> None:
    frames = decode(ask(server, stream=True, stream_options=options).body)
    usages = [frame.json().get("usage") for frame in frames[:-1]]
    assert [usage["total_tokens"] for usage in usages if usage] == ([5] if told else [])


def test_the_newer_name_of_max_tokens_is_the_stronger(server: AppServer) -> None:
    answer = ask(server, max_tokens=3, max_completion_tokens=2)
    assert (answer.json["usage"]["completion_tokens"], answer.json["choices"][0]["finish_reason"]) == (2, "length")


def test_a_stream_that_fails_has_no_done_mark(server: AppServer) -> None:
    answer = ask(server, stream=True, simulator=SHORT | {"fault": {"kind": "die", "at_token": 1}})
    assert answer.status == 200
    assert b"[DONE]" not in answer.body
    assert decode(answer.body)[-1].json()["error"]["code"] == "upstream_truncated"


def test_a_failure_before_the_first_token_has_its_own_status(server: AppServer) -> None:
    for stream in (True, False):
        answer = ask(server, stream=stream, simulator=SHORT | {"fault": {"kind": "error", "at_token": 0}})
        assert (answer.status, answer.json["error"]["type"]) == (502, "server_error")


def test_the_models_are_listed_and_each_can_be_asked_for(server: AppServer) -> None:
    listed = server.get("/v1/models").json
    assert (listed["object"], [model["id"] for model in listed["data"]]) == ("list", ["simulator"])
    assert server.get("/v1/models/simulator").json == listed["data"][0]


def test_a_model_that_is_not_served_is_told(server: AppServer) -> None:
    for answer in (ask(server, model="gpt-0"), ask(server, model="gpt-0", stream=True), server.get("/v1/models/gpt-0")):
        assert (answer.status, answer.json["error"]["code"]) == (404, "model_not_found")
