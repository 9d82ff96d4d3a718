"""Anthropic's surface over HTTP, byte by byte; its SDK has tests of its own."""

from typing import Any

import pytest

from tests.support.server import AppServer, HTTPAnswer
from tests.support.sse import decode

SHORT = {"tokens": 3, "first_token_ms": 0, "tokens_per_second": 0}


def ask(server: AppServer, headers: dict[str, str] | None = None, **more: Any) -> HTTPAnswer:
    messages = [{"role": "user", "content": "Say it."}]
    body = {"model": "simulator", "max_tokens": 9, "messages": messages, "simulator": SHORT} | more
    return server.post("/v1/messages", body, headers)


def test_a_document_is_a_message(server: AppServer) -> None:
    answer = ask(server)
    (block,) = answer.json["content"]
    assert (answer.json["type"], answer.json["id"]) == ("message", f"msg_{answer.headers['x-stream-id']}")
    assert (answer.json["stop_reason"], block["type"]) == ("end_turn", "text")
    assert answer.json["usage"] == {"input_tokens": 2, "output_tokens": 3}


def test_a_stream_says_the_same_in_events(server: AppServer) -> None:
    answer = ask(server, stream=True)
    frames = decode(answer.body)
    text = "".join(frame.json()["delta"]["text"] for frame in frames if frame.event == "content_block_delta")
    assert text == ask(server).json["content"][0]["text"]
    assert frames[0].json()["message"]["id"] == f"msg_{answer.headers['x-stream-id']}"
    assert frames[-2].json()["usage"] == {"input_tokens": 2, "output_tokens": 3}
    assert b"\nid:" not in answer.body


def test_max_tokens_ends_the_answer(server: AppServer) -> None:
    answer = ask(server, max_tokens=2)
    assert (answer.json["usage"]["output_tokens"], answer.json["stop_reason"]) == (2, "max_tokens")


def test_the_requests_id_is_where_the_sdk_looks_for_it(server: AppServer) -> None:
    for answer in (ask(server), ask(server, stream=True), ask(server, model="claude-0")):
        assert answer.headers["request-id"] == answer.headers["x-request-id"]
    assert "request-id" not in server.get("/v1/models").headers


def test_a_stream_that_fails_has_no_stop(server: AppServer) -> None:
    answer = ask(server, stream=True, simulator=SHORT | {"fault": {"kind": "die", "at_token": 1}})
    last = decode(answer.body)[-1]
    assert answer.status == 200
    assert (last.event, last.json()["error"]["details"]) == ("error", {"error_code": "upstream_truncated"})
    assert b"message_stop" not in answer.body


def test_a_failure_before_the_first_token_has_its_own_status(server: AppServer) -> None:
    for stream in (True, False):
        answer = ask(server, stream=stream, simulator=SHORT | {"fault": {"kind": "error", "at_token": 0}})
        assert (answer.status, answer.json["error"]["type"]) == (502, "api_error")
        assert answer.json["request_id"] == answer.headers["request-id"]


@pytest.mark.parametrize(
    ("more", "field"),
    [
        ({"max_tokens": None}, "max_tokens"),
        ({"messages": []}, "messages"),
        ({"temperature": 1.1}, "temperature"),
        ({"tool_choice": "auto"}, "tool_choice"),
        ({"mcp_servers": [{}]}, "mcp_servers"),
    ],
)
def test_a_body_that_is_wrong_is_told_by_field(server: AppServer, more: dict[str, Any], field: str) -> None:
    answer = ask(server, **more)
    assert (answer.status, answer.json["error"]["type"]) == (400, "invalid_request_error")
    assert answer.json["error"]["message"].startswith(f"{field}:")


def test_what_is_no_json_is_a_bad_request_too(server: AppServer) -> None:
    answer = server.post("/v1/messages", b"{")
    assert (answer.status, answer.json["type"]) == (400, "error")


def test_the_same_key_and_body_join_one_generation_and_another_body_does_not(server: AppServer) -> None:
    """Also where the body has fields that only some upstreams take."""
    key = {"Idempotency-Key": "anthropic-1"}
    fields = {"speed": "fast", "of_tomorrow": 1, "context_management": {}}
    first, second = ask(server, key, **fields), ask(server, key, stream=True, **fields)
    assert first.headers["x-stream-id"] == second.headers["x-stream-id"]
    other = ask(server, key, of_tomorrow=2)
    assert (other.status, other.json["error"]["details"]["error_code"]) == (422, "idempotency_mismatch")


def test_the_stream_can_be_read_again_in_native_events(server: AppServer) -> None:
    stream_id = ask(server).headers["x-stream-id"]
    frames = decode(server.get(f"/api/v1/streams/{stream_id}").body)
    assert [frame.event for frame in frames] == ["token"] * 3 + ["done"]


def test_the_models_have_the_fields_that_either_sdk_reads(server: AppServer) -> None:
    listed = server.get("/v1/models", {"anthropic-version": "2023-06-01"}).json
    (model,) = listed["data"]
    assert (model["type"], model["object"], model["display_name"]) == ("model", "model", "simulator")
    assert (listed["has_more"], listed["first_id"], listed["last_id"]) == (False, "simulator", "simulator")


def test_a_model_that_is_not_there_is_told_in_the_shape_of_who_asks(server: AppServer) -> None:
    for headers, kind in (({"anthropic-version": "2023-06-01"}, "error"), ({}, None)):
        answer = server.get("/v1/models/claude-0", headers)
        assert (answer.status, answer.json.get("type")) == (404, kind)
