"""The native API in two versions, and the paths of older clients: one implementation, headers that say what goes."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.call import Call, ask
from tests.support.chain import Chain
from tests.support.models import Models
from tests.support.raw_socket import RawSocket
from tests.support.socket_client import SocketClient
from tests.support.upstream import ScriptedUpstream
from tests.support.upstream_script import Script

AT_ONCE = {"seed": 5, "tokens": 6, "tokens_per_second": 0, "first_token_ms": 0}
V2: dict[str, Any] = {"input": "Hello", "options": {"simulator": AT_ONCE}}
V1: dict[str, Any] = {"prompt": "Hello", "simulator": AT_ONCE}


@pytest.fixture(scope="module")
def url(models: Models) -> Iterator[str]:
    with Chain({"SLUICE_CONFIG": str(models.path)}, workers=2) as running:
        yield running.url


def streamed(**options: Any) -> dict[str, Any]:
    return V2 | {"options": V2["options"] | {"stream": True} | options}


def test_both_versions_say_the_same_in_their_own_shape(url: str) -> None:
    old, new = ask(url, "/api/v1/generate", V1), ask(url, "/api/v2/generate", V2 | {"metadata": {"page": "7"}})
    assert new.json["content"] == [{"type": "text", "text": old.json["response"]}]
    assert new.json["metadata"] == {"page": "7"}
    assert new.json["usage"] == {"input_tokens": 1, "output_tokens": 6, "total_tokens": 7}
    assert new.json["id"] == new.headers["x-stream-id"]
    assert float(new.headers["x-process-time"]) > 0


def test_the_end_of_a_stream_repeats_the_caller_s_metadata_to_whoever_reads_it(url: str) -> None:
    first = ask(url, "/api/v2/generate", streamed() | {"metadata": {"page": "7", "model": "mine"}})
    again = ask(url, f"/api/v2/streams/{first.headers['x-stream-id']}")
    assert first.frames[-1].json()["metadata"] == {
        "page": "7",
        "model": "simulator",
        "stream_id": first.headers["x-stream-id"],
    }
    assert [frame.data for frame in again.frames] == [frame.data for frame in first.frames]
    assert "x-process-time" not in first.headers


def test_parts_reach_an_upstream_as_parts(url: str, models: Models, upstream: ScriptedUpstream) -> None:
    model = models.unused()
    upstream.script(model, Script(tokens=1))
    picture = {"type": "image", "url": "data:image/png;base64,aGk="}
    body = {"model": model, "input": [{"type": "text", "text": "What is it?"}, picture], "options": {"seed": 3}}
    assert ask(url, "/api/v2/generate", body).status == 200
    (asked,) = upstream.requests(model)
    assert asked.body["messages"][0]["content"][1] == {"type": "image_url", "image_url": {"url": picture["url"]}}
    assert asked.body["seed"] == 3


def test_a_cached_request_is_generated_once_and_replayed_as_a_stream(
    url: str, models: Models, upstream: ScriptedUpstream
) -> None:
    model = models.unused()
    upstream.script(model, Script(tokens=4))
    body = {"model": model, "input": "Hello", "options": {"temperature": 0, "cache": True}}
    first = ask(url, "/api/v2/generate", body)
    then = ask(url, "/api/v2/generate", body | {"options": body["options"] | {"stream": True}})  # type: ignore[operator]
    other = ask(url, "/api/v2/generate", body | {"input": "Hello!"})
    assert then.text == first.json["content"][0]["text"]
    assert then.headers["x-stream-id"] == first.json["id"] != other.json["id"]
    assert len(upstream.requests(model)) == 2


def test_a_cached_answer_tells_each_who_asks_his_own_metadata(
    url: str, models: Models, upstream: ScriptedUpstream
) -> None:
    """Whoever asked second was told the first one's."""
    model = models.unused()
    upstream.script(model, Script(tokens=4))
    body: dict[str, Any] = {"model": model, "input": "Hello", "options": {"temperature": 0, "cache": True}}
    first, second = (ask(url, "/api/v2/generate", body | {"metadata": {"page": page}}) for page in "12")
    then = ask(url, "/api/v2/generate", body | {"options": body["options"] | {"stream": True}, "metadata": {"to": "x"}})
    bare = ask(url, "/api/v2/generate", body)
    assert [answer.json["metadata"] for answer in (first, second, bare)] == [{"page": "1"}, {"page": "2"}, {}]
    said = then.frames[-1].json()["metadata"]
    assert said == {"to": "x", "model": model, "stream_id": first.json["id"]}
    assert len(upstream.requests(model)) == 1


def test_a_key_is_of_one_request_and_of_its_metadata(url: str) -> None:
    """Another request's metadata was answered by the first one's stream, and its own was lost."""
    key = {"Idempotency-Key": "metadata"}
    body = V2 | {"metadata": {"page": "7"}}
    first, again = (ask(url, "/api/v2/generate", body, **key) for _ in range(2))
    assert again.json == first.json
    for other in (V2 | {"metadata": {"page": "8"}}, V2):
        refused = ask(url, "/api/v2/generate", other, **key)
        assert (refused.status, refused.json["error"]["code"]) == (422, "idempotency_mismatch")


def test_a_failure_is_not_kept_for_the_next_who_asks(url: str, models: Models, upstream: ScriptedUpstream) -> None:
    model = models.unused()
    upstream.script(model, Script(tokens=4, die_after=2), Script(tokens=4))
    body = {"model": model, "input": "Hello", "options": {"seed": 1, "cache": True}}
    assert ask(url, "/api/v2/generate", body).status == 502
    second, third = (ask(url, "/api/v2/generate", body) for _ in range(2))
    assert second.json["content"][0]["text"] == Script(tokens=4).text
    assert third.json["id"] == second.json["id"]


def test_what_would_not_repeat_is_not_cached(url: str) -> None:
    refused = ask(url, "/api/v2/generate", {"input": "Hello", "options": {"cache": True, "temperature": 0.7}})
    assert refused.status == 422
    assert "cache: needs temperature 0 or a seed" in refused.json["error"]["message"]


@pytest.mark.parametrize(
    ("path", "body", "successor"),
    [
        ("/api/v1/generate", V1, "/api/v2/generate"),
        ("/api/generate", V1, "/api/v2/generate"),
        ("/api/chat", {"message": "Hello", "simulator": AT_ONCE}, "/api/v2/chat"),
        ("/api/chat/stream", {"message": "Hello", "simulator": AT_ONCE}, "/api/v2/chat"),
        ("/api/v1/stream/generate", V1, "/api/v2/generate"),
        ("/api/stream?prompt=Hello", None, "/api/v2/stream"),
        ("/auth-status", None, "/api/v2/auth/status"),
        ("/ready", None, "/readyz"),
    ],
)
def test_paths_that_will_go_answer_and_say_where_to_go(
    url: str, path: str, body: dict[str, Any] | None, successor: str
) -> None:
    answer = ask(url, path, body)
    assert answer.status == 200
    assert answer.verdict == "complete"
    assert answer.headers["link"] == f'<{successor}>; rel="successor-version"'
    assert answer.headers["deprecation"].startswith("@")
    assert answer.headers["sunset"].endswith("GMT")


def test_a_conversation_goes_on_in_whichever_version(url: str, models: Models, upstream: ScriptedUpstream) -> None:
    model = models.unused()
    upstream.script(model, Script(tokens=["Good ", "morning."]))
    parts = [{"type": "text", "text": "Hello"}]
    first = ask(url, "/api/v2/chat", {"model": model, "input": parts, "conversation_id": "across"})
    assert first.json["conversation_id"] == "across"
    assert ask(url, "/api/v1/chat", {"model": model, "message": "And?", "conversation_id": "across"}).status == 200
    assert [message["content"] for message in upstream.requests(model)[-1].body["messages"]] == [
        "Hello",
        "Good morning.",
        "And?",
    ]


@pytest.mark.parametrize("path", ["/ws/generate", "/api/v1/ws/generate", "/api/v2/ws/generate"])
def test_sockets_are_under_every_version(url: str, path: str) -> None:
    with SocketClient(url, path) as client:
        client.say(prompt="Hello", simulator=AT_ONCE).until("end")
        assert client.text == ask(url, "/api/v1/generate", V1).json["response"]


@pytest.mark.parametrize("path", ["/ws/chat/s0", "/api/v1/ws/chat/s1", "/api/v2/ws/chat/s2"])
def test_a_conversation_s_sockets_are_under_every_version(url: str, path: str) -> None:
    with SocketClient(url, path) as client:
        client.say(message="Hello", simulator=AT_ONCE).until("end")
        assert client.text == ask(url, "/api/v1/generate", V1).json["response"]


@pytest.mark.parametrize(
    ("path", "status", "successor"),
    [
        ("/ws/generate", 101, "/api/v2/ws/generate"),
        ("/ws/chat/old", 101, "/api/v2/ws/chat/old"),
        ("/ws/chat/a%20b", 400, "/api/v2/ws/chat/a%20b"),
        ("/ws/chat/a%0d%0ax-evil:%201", 400, "/api/v2/ws/chat/a%0d%0ax-evil%3a%201"),
    ],
)
def test_sockets_of_older_clients_are_told_where_to_go_by_whatever_they_are_answered(
    url: str, path: str, status: int, successor: str
) -> None:
    with RawSocket(url, path) as client:
        assert client.status == status
        lines = client.head.split("\r\n")
    assert f'link: <{successor}>; rel="successor-version"' in lines
    assert any(line.startswith("deprecation: @") for line in lines)
    assert any(line.startswith("sunset: ") for line in lines)
    assert not any(line.startswith("x-evil") for line in lines)


@pytest.mark.parametrize("path", ["/api/v1/ws/generate", "/api/v2/ws/chat/c1"])
def test_sockets_that_stay_say_nothing(url: str, path: str) -> None:
    with RawSocket(url, path) as client:
        assert client.status == 101
        assert "deprecation" not in client.head


@pytest.mark.parametrize("path", ["/api/v2/auth/status", "/api/v1/auth/status", "/readyz"])
def test_paths_that_stay_say_nothing(url: str, path: str) -> None:
    assert "deprecation" not in ask(url, path).headers


def test_both_versions_read_a_stream_under_one_id(url: str) -> None:
    with Call(url, "/api/v2/generate", streamed()) as call:
        stream_id = call.finish().headers["x-stream-id"]
    v1, v2 = (ask(url, f"/api/{version}/streams/{stream_id}/status") for version in ("v1", "v2"))
    assert v1.json == v2.json
    assert v1.json["state"] == "done"


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ({"options": {"temperature": 0, "cache": True}}, "options.cache: not in a conversation"),
        ({"input": [{"type": "image", "url": "data:image/png;base64,aGk="}]}, "input: a conversation keeps text"),
    ],
)
def test_what_a_conversation_cannot_keep_is_refused(url: str, more: dict[str, Any], why: str) -> None:
    refused = ask(url, "/api/v2/chat", {"input": "Hello", "conversation_id": "c-1"} | more)
    assert refused.status == 422
    assert why in refused.json["error"]["message"]
