"""A browser's EventSource gives up for good on any status but 200, so want of a worker is told to it as a stream."""

import json
import urllib.request
from urllib.error import HTTPError

import pytest

from tests.support.edge import Edge
from tests.support.sse import decode


def get(url: str, accept: str) -> tuple[int, str, str]:
    request = urllib.request.Request(url, headers={"Accept": accept})
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, answer.headers["Content-Type"], answer.read().decode()
    except HTTPError as error:
        return error.code, error.headers["Content-Type"], error.read().decode()


def test_an_event_source_without_a_worker_is_told_to_ask_again() -> None:
    with Edge(None) as edge:
        answers = [get(f"{edge.url}/api/v1/stream?prompt=x", "text/event-stream") for _ in range(12)]
    waits = set()
    for status, media_type, body in answers:
        assert (status, media_type) == (200, "text/event-stream")
        (frame,) = decode(body.encode())
        assert (frame.event, frame.json()) == ("reconnect", {"reason": "unavailable", "retry_ms": frame.retry})
        assert frame.retry is not None
        assert 1000 <= frame.retry < 3000
        waits.add(frame.retry)
    assert len(waits) > 2, "not all at the same moment again"


@pytest.mark.parametrize(("path", "accept"), [("/api/v1/stream?prompt=x", "*/*"), ("/v1/models", "text/event-stream")])
def test_everybody_else_without_a_worker_gets_503(path: str, accept: str) -> None:
    with Edge(None) as edge:
        status, _, body = get(edge.url + path, accept)
    assert status == 503
    assert "error" in json.loads(body)
