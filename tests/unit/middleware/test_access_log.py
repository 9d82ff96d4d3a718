"""One line for each request, when its answer ends, that says how it ended."""

import json
import socket
import time
from itertools import count
from typing import Any

import pytest

from tests.support.server import AppServer

SHORT = {"tokens": 3, "first_token_ms": 0, "tokens_per_second": 0}
_numbers = count()


@pytest.fixture
def name() -> str:
    """A request's name that no other test uses."""
    return f"access-{next(_numbers)}"


def generate(server: AppServer, name: str, **more: Any) -> dict[str, Any]:
    """The line of a request that generates."""
    body = {"prompt": "Say it.", "simulator": SHORT} | more
    server.post("/api/v1/generate", body, {"X-Request-ID": name})
    return server.wait_line(request_id=name, event="request")


def test_a_line_says_who_asked_what_and_what_was_answered(server: AppServer, name: str) -> None:
    server.get("/v1/models?key=sk-canary", {"X-Request-ID": name})
    line = server.wait_line(request_id=name)
    assert (line["event"], line["level"]) == ("request", "info")
    assert (line["method"], line["path"], line["status"]) == ("GET", "/v1/models", 200)
    assert line["client"] == "127.0.0.1"
    assert 0 <= line["duration_ms"] < 5000
    assert "canary" not in server.output()


@pytest.mark.parametrize("stream", [True, False])
def test_a_streams_line_says_how_it_went(server: AppServer, name: str, stream: bool) -> None:
    line = generate(server, name, stream=stream)
    assert (line["outcome"], line["tokens"], line["model"], line["status"]) == ("completed", 3, "simulator", 200)
    assert len(line["stream_id"]) == 24
    assert 0 <= line["ttft_ms"] <= line["duration_ms"] + 1


@pytest.mark.parametrize(
    ("fault", "stream", "status", "outcome", "tokens"),
    [
        ({"kind": "error", "at_token": 0}, True, 502, "upstream_error", 0),
        ({"kind": "error", "at_token": 0}, False, 502, "upstream_error", 0),
        ({"kind": "die", "at_token": 2}, True, 200, "upstream_truncated", 2),
        ({"kind": "die", "at_token": 2}, False, 502, "upstream_truncated", 2),
    ],
)
def test_a_failure_is_named_by_its_code(
    server: AppServer, name: str, fault: dict[str, Any], stream: bool, status: int, outcome: str, tokens: int
) -> None:
    line = generate(server, name, stream=stream, simulator=SHORT | {"fault": fault})
    assert (line["status"], line["outcome"], line["tokens"]) == (status, outcome, tokens)


@pytest.mark.parametrize(
    ("body", "status", "outcome"),
    [({"model": "gpt-0"}, 404, "model_not_found"), ({"max_tokens": 0}, 422, "invalid_request")],
)
def test_a_refusal_is_named_by_its_code(
    server: AppServer, name: str, body: dict[str, Any], status: int, outcome: str
) -> None:
    line = generate(server, name, **body)
    assert (line["status"], line["outcome"]) == (status, outcome)
    assert "stream_id" not in line


def begin_stream(server: AppServer, name: str, tokens_per_second: float) -> socket.socket:
    """A client that has had the first bytes of a stream."""
    simulator = {"tokens": 1000, "first_token_ms": 0, "tokens_per_second": tokens_per_second}
    body = json.dumps({"prompt": "a", "stream": True, "on_disconnect": "cancel", "simulator": simulator}).encode()
    head = f"POST /api/v1/generate HTTP/1.1\r\nHost: h\r\nX-Request-ID: {name}\r\nContent-Type: application/json\r\n"
    client = socket.create_connection(("127.0.0.1", server.port), 10)
    client.sendall(head.encode() + b"Content-Length: %d\r\n\r\n" % len(body) + body)
    assert client.recv(1000).startswith(b"HTTP/1.1 200")
    return client


def test_a_line_comes_when_the_answer_ends_and_not_before(server: AppServer, name: str) -> None:
    with begin_stream(server, name, tokens_per_second=50):
        time.sleep(0.3)
        assert server.lines(request_id=name) == []
    line = server.wait_line(request_id=name)
    assert line["duration_ms"] >= 300
    assert 5 <= line["tokens"] <= 200
    time.sleep(0.05)
    assert len(server.lines(request_id=name)) == 1


def test_a_client_that_left_is_told_from_one_that_stayed(server: AppServer, name: str) -> None:
    begin_stream(server, name, tokens_per_second=20).close()
    left = time.monotonic()
    line = server.wait_line(request_id=name)
    assert (line["outcome"], line["status"]) == ("client_cancelled", 200)
    assert time.monotonic() - left < 1


def test_probes_that_succeed_say_nothing(server: AppServer, name: str) -> None:
    for path in ("/livez", "/readyz"):
        assert server.get(path, {"X-Request-ID": name}).status == 200
    server.get("/health", {"X-Request-ID": f"{name}-end"})
    server.wait_line(request_id=f"{name}-end")
    assert server.lines(request_id=name) == []


def test_probes_that_fail_are_told(server: AppServer, name: str) -> None:
    server.request("POST", "/livez", b"", {"X-Request-ID": name})
    assert server.wait_line(request_id=name)["status"] == 405


def test_a_client_cannot_pretend_to_be_another(server: AppServer, name: str) -> None:
    """X-Real-IP is NGINX's word, which comes by a socket without addresses."""
    server.get("/health", {"X-Request-ID": name, "X-Real-IP": "203.0.113.9", "X-Forwarded-For": "203.0.113.9"})
    assert server.wait_line(request_id=name)["client"] == "127.0.0.1"


def test_a_line_cannot_be_forged_by_a_path(server: AppServer, name: str) -> None:
    server.get("/a%0a%22,%22status%22:%20200%0d", {"X-Request-ID": name})
    line = server.wait_line(request_id=name)
    assert (line["status"], line["path"]) == (404, '/a\n","status": 200\r')
