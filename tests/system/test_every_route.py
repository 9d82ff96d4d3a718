"""Whatever becomes of a request, on whichever route: its upstream is let go, and its caller's place is free again."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from tests.support import server
from tests.support.api_keys import ApiKeys
from tests.support.call import Call
from tests.support.chain import Chain
from tests.support.models import Models
from tests.support.socket_client import SocketClient
from tests.support.upstream import ScriptedUpstream
from tests.support.upstream_script import Script
from tests.support.workers import until

HELLO = [{"role": "user", "content": "Hello"}]
# Path and body of each route that generates; a body without a model is a GET.
ROUTES: dict[str, tuple[str, dict[str, Any] | None]] = {
    "generate": ("/api/v1/generate", {"prompt": "Hello"}),
    "chat": ("/api/v1/chat", {"message": "Hello"}),
    "stream": ("/api/v1/stream", None),
    "generate, version 2": ("/api/v2/generate", {"input": "Hello"}),
    "chat, version 2": ("/api/v2/chat", {"input": "Hello", "conversation_id": "c1"}),
    "stream, version 2": ("/api/v2/stream", None),
    "an older client's generate": ("/api/generate", {"prompt": "Hello"}),
    "an older client's chat": ("/api/chat", {"message": "Hello"}),
    "an older client's stream": ("/api/stream", None),
    "an older client's stream of generate": ("/api/v1/stream/generate", {"prompt": "Hello"}),
    "an older client's stream of chat": ("/api/chat/stream", {"message": "Hello"}),
    "chat completions": ("/v1/chat/completions", {"messages": HELLO}),
    "messages": ("/v1/messages", {"messages": HELLO, "max_tokens": 100}),
    "responses": ("/v1/responses", {"input": "Hello"}),
}
ALWAYS_A_STREAM = tuple(route for route, (path, _) in ROUTES.items() if "stream" in path)
# What ends an answer that is all there, on whichever surface.
WHOLE = re.compile(rb"event: done|\[DONE\]|event: message_stop|response\.completed")
SOCKETS = {
    "socket": "/api/v1/ws/generate",
    "socket of a conversation": "/api/v1/ws/chat/c2",
    "socket, version 2": "/api/v2/ws/generate",
    "socket of a conversation, version 2": "/api/v2/ws/chat/c3",
    "an older client's socket": "/ws/generate",
    "an older client's socket of a conversation": "/ws/chat/c4",
}
TASKS, RESPONSES = "/api/v1/tasks", "/v1/responses"
# What goes on by itself: its path, its body, where to look at it and where to stop it.
BACKGROUND: dict[str, tuple[str, dict[str, Any], str, str]] = {
    "task": (TASKS, {"prompts": ["Hello", "Hello"]}, "task_id", ""),
    "task, version 2": (f"/api/v2{TASKS.removeprefix('/api/v1')}", {"prompts": ["Hello"]}, "task_id", ""),
    "background response": (RESPONSES, {"input": "Hello", "background": True}, "id", "/cancel"),
}
GRACE_SECONDS = 1.0
LET_GO_SECONDS_MAX = 1.0
# A slot that is lost is free again only when its lease has run out, which takes twenty.
FREE_SECONDS_MAX = 4.0
SLOW = Script(tokens=1000, delay_seconds=0.05)
TIERS: dict[str, dict[str, int]] = {"free": {}, "one": {"concurrent_streams": 1}}


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> ApiKeys:
    principals = [_name(route) for route in (*ROUTES, *SOCKETS, *BACKGROUND)]
    return ApiKeys(tmp_path_factory.mktemp("keys"), **dict.fromkeys(principals, "one"))


@pytest.fixture(scope="module")
def chain(models: Models, keys: ApiKeys) -> Iterator[Chain]:
    models.path.write_text(yaml.safe_dump({"models": models.catalog, "tiers": TIERS}))
    env = {
        "SLUICE_CONFIG": str(models.path),
        "SLUICE_ON_DISCONNECT": "cancel",
        "SLUICE_GRACE_SECONDS": str(GRACE_SECONDS),
    }
    with Chain(keys.environment | env, workers=2) as running:
        yield running


def _name(route: str) -> str:
    return "".join(letter for letter in route if letter.isalnum())


@pytest.mark.parametrize("route", ROUTES)
def test_however_it_ends_the_upstream_is_let_go_and_the_callers_place_is_free(
    route: str, chain: Chain, keys: ApiKeys, models: Models, upstream: ScriptedUpstream
) -> None:
    """Each of these has lost places somewhere: by an end that one route told nobody of."""
    path, fields = ROUTES[route]
    model, headers = models.unused(), keys.headers(_name(route))

    def call(stream: bool = True) -> Call:
        if fields is None:
            return Call(chain.url, f"{path}?prompt=Hello&model={model}", headers=headers)
        body: dict[str, Any] = {"model": model, **fields}
        if path.startswith("/api/v2"):
            body["options"] = {"stream": stream}
        elif route not in ALWAYS_A_STREAM:
            body["stream"] = stream
        return Call(chain.url, path, body, headers=headers)

    def is_free() -> None:
        upstream.script(model)
        until(lambda: WHOLE.search(call().finish().body), FREE_SECONDS_MAX, "the place is free")

    # One behind the other's end, without a pause.
    assert [call(stream).finish().status for stream in (True, True, True, False, False, True)] == [200] * 6
    for stream in (True, False)[: 1 if route in ALWAYS_A_STREAM else 2]:
        upstream.script(model, SLOW)
        before = len(upstream.requests(model))
        with call(stream) as left:
            upstream.wait_tokens(model, 3, before + 1)
            if stream:
                left.until(2)
            # A conversation may say first that it is being answered.
            assert call().finish().status in ((409, 429) if "conversation_id" in (fields or {}) else (429,))
            gone = left.leave("rst")
        closed = upstream.wait_closed(model).closed_at
        # Whoever reads a response as a stream may come back for a while.
        bound = LET_GO_SECONDS_MAX + (3 * GRACE_SECONDS if route == "responses" and stream else 0)
        assert closed is not None
        assert 0 <= closed - gone < bound
        is_free()
    for fault in (Script(status=500), Script(die_after=2, how="rst")):
        upstream.script(model, fault)
        assert not WHOLE.search(call().finish().body)
        is_free()


@pytest.mark.parametrize("kind", SOCKETS)
def test_a_socket_that_was_left_has_freed_its_place_too(
    kind: str, chain: Chain, keys: ApiKeys, models: Models, upstream: ScriptedUpstream
) -> None:
    model, headers, path = models.unused(), keys.headers(_name(kind)), SOCKETS[kind]
    with SocketClient(chain.url, path, headers) as client:
        for _ in range(6):
            client.say(message="x", model=model).until("end")
        upstream.script(model, Script(die_after=2))
        client.say(message="x", model=model).until("error")
        upstream.script(model, SLOW)
        client.say(message="x", model=model, on_disconnect="cancel").until("token", 2)
        with SocketClient(chain.url, "/api/v1/ws/generate", headers) as other:
            other.say(message="x", model=model).until("error")
            assert other.messages[-1]["code"] == "rate_limited"
        client.drop()
    upstream.wait_closed(model)
    upstream.script(model)

    def answered() -> bool:
        with SocketClient(chain.url, path, headers) as again:
            return bool(again.say(message="x", model=model).hear()["type"] == "start")

    until(answered, FREE_SECONDS_MAX, "the place is free")


@pytest.mark.parametrize("kind", BACKGROUND)
def test_what_nobody_waits_for_has_a_place_until_it_ends_however_it_does(
    kind: str, chain: Chain, keys: ApiKeys, models: Models, upstream: ScriptedUpstream
) -> None:
    path, fields, name, stop = BACKGROUND[kind]
    model, headers = models.unused(), keys.headers(_name(kind))

    def begin() -> Call:
        return Call(chain.url, path, {"model": model, **fields}, headers=headers).finish()

    def begun() -> str:
        """Where it can be looked at."""
        made = begin()
        assert made.status in (200, 202), made.body
        return f"{path}/{made.json[name]}"

    def status(made: str) -> str:
        return str(Call(chain.url, made, headers=headers).finish().json["status"])

    def end(made: str) -> str:
        until(lambda: status(made) not in ("pending", "queued", "running", "in_progress"), 20, "it has ended")
        return status(made)

    for _ in range(6):
        assert end(begun()) == "completed"
    for fault in (Script(status=500), Script(die_after=2, how="rst")):
        upstream.script(model, fault)
        assert end(begun()) in ("completed", "failed")  # a task whose prompts fail has done what it was to do
    upstream.script(model, SLOW)
    made = begun()
    upstream.wait_tokens(model, 3, len(upstream.requests(model)))
    assert begin().status == 429
    assert Call(chain.url, "/api/v1/generate", {"model": model, "prompt": "x"}, headers=headers).finish().status == 429
    assert server.request(chain.port, "POST" if stop else "DELETE", made + stop, headers=headers).status in (200, 204)
    upstream.wait_closed(model)
    assert end(made) == "cancelled"
    upstream.script(model)
    until(lambda: begin().status in (200, 202), FREE_SECONDS_MAX, "the place is free")
