"""Who may open a WebSocket, how much may be asked for on one, and for how long."""

import json
from collections.abc import Iterator
from pathlib import Path
from time import monotonic, sleep
from urllib.parse import urlencode
from urllib.request import urlopen

import msgspec
import pytest

from tests.support.api_keys import ApiKeys, key_of
from tests.support.call import ask
from tests.support.gunicorn import Gunicorn
from tests.support.raw_socket import RawSocket
from tests.support.socket_client import SocketClient
from tests.support.upstream import ScriptedUpstream

GENERATE, CHAT = "/api/v1/ws/generate", "/api/v1/ws/chat/c1"
FAST = {"tokens": 2, "tokens_per_second": 0, "first_token_ms": 0}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("sockets")


@pytest.fixture(scope="module")
def keys(folder: Path) -> ApiKeys:
    return ApiKeys(folder, alice="pro", bob="pro", carol="free", dora="free")


@pytest.fixture(scope="module")
def server(folder: Path, keys: ApiKeys, upstream: ScriptedUpstream) -> Iterator[Gunicorn]:
    config = folder / "models.json"
    silent = [{"provider": "openai", "base_url": upstream.base_url, "model": "silent", "first_token_seconds": 60}]
    tiers = {"free": {"requests_per_minute": 5}, "pro": {}}
    models = {"simulator": [{"provider": "simulator"}], "silent": silent}
    config.write_bytes(msgspec.json.encode({"models": models, "tiers": tiers}))
    settings = {"SLUICE_CONFIG": str(config), "SLUICE_TOKEN_SECONDS": "3", "SLUICE_HEARTBEAT_SECONDS": "1"}
    with Gunicorn(settings | keys.environment) as running:
        yield running


def ticket(server: Gunicorn, keys: ApiKeys, scope: str, who: str = "alice") -> str:
    return str(ask(server.url, "/api/v1/tickets", {"scope": scope}, **keys.headers(who)).json["ticket"])


def issued(server: Gunicorn) -> dict[str, str]:
    """A token in return for bob's key."""
    form = urlencode({"grant_type": "client_credentials", "client_secret": key_of("bob")}).encode()
    with urlopen(f"{server.url}/api/v1/auth/token", form, timeout=20) as answer:
        return {"Authorization": f"Bearer {json.load(answer)['access_token']}"}


def status(server: Gunicorn, path: str, **headers: str) -> int:
    with RawSocket(server.url, path, **headers) as client:
        return client.status


def test_nobody_comes_in_who_is_not_known_and_is_told_so_by_a_status(server: Gunicorn, keys: ApiKeys) -> None:
    for path in (GENERATE, CHAT):
        assert status(server, path) == 401
        assert status(server, path, Authorization="Bearer no-such-key") == 401
        assert status(server, path, **keys.headers("alice")) == 101
        with RawSocket(server.url, path) as client:
            assert "www-authenticate: bearer" in client.head


def test_only_pages_of_our_own_open_sockets(server: Gunicorn, keys: ApiKeys) -> None:
    host = server.url.removeprefix("http://")
    alice = keys.headers("alice")
    for origin in (f"http://{host}", f"https://{host}", f"HTTP://{host}"):
        assert status(server, GENERATE, Origin=origin, **alice) == 101
    evil = ("http://evil.example", "null", "", f"http://{host}.evil.example", f"http://evil.example/{host}", "file://")
    for origin in (*evil, f"http://x@{host}", f"http://{host}1"):
        assert status(server, GENERATE, Origin=origin, **alice) == 403
        assert status(server, GENERATE, Origin=origin) == 403


def test_a_ticket_opens_the_one_thing_that_it_is_for(server: Gunicorn, keys: ApiKeys) -> None:
    mine = ticket(server, keys, "conversation:c1")
    with SocketClient(server.url, f"{CHAT}?ticket={mine}") as client:
        client.say(message="Hello", simulator=FAST).until("end")
        first = client.last_id
    assert status(server, f"/api/v1/ws/chat/c2?ticket={mine}") == 403
    assert status(server, f"{GENERATE}?ticket={mine}") in (401, 403)
    other = ask(server.url, "/api/v1/generate", {"prompt": "x", "simulator": FAST}, **keys.headers("alice"))
    with SocketClient(server.url, f"{CHAT}?ticket={mine}") as client:
        client.say(type="resume", last_event_id=first).until("end")
        client.say(type="resume", stream_id=other.json["stream_id"]).until("error")
        assert client.messages[-1]["code"] == "not_found"
    once = ticket(server, keys, "create")
    with SocketClient(server.url, f"{GENERATE}?ticket={once}") as client:
        client.say(prompt="one", simulator=FAST).until("end")
        client.say(prompt="two", simulator=FAST).until("error")
        assert client.messages[-1]["code"] == "idempotency_mismatch"
    assert mine not in server.log


def test_a_conversation_and_a_stream_are_their_callers_own(server: Gunicorn, keys: ApiKeys) -> None:
    with (
        SocketClient(server.url, CHAT, keys.headers("alice")) as alice,
        SocketClient(server.url, CHAT, keys.headers("bob")) as bob,
    ):
        alice.say(message="Hello", simulator=FAST).until("end")
        bob.say(type="resume", last_event_id=alice.messages[1]["id"]).until("error")
        assert [message["code"] for message in bob.messages] == ["not_found"]
        bob.say(message="a b c", simulator=FAST).until("end")
        assert bob.messages[-1]["usage"]["input_tokens"] == 3
        assert "a b c" not in [message.get("message") for message in alice.messages]


def test_messages_count_as_requests_do_in_the_same_buckets(server: Gunicorn, keys: ApiKeys) -> None:
    carol = keys.headers("carol")
    assert ask(server.url, "/api/v1/generate", {"prompt": "x", "simulator": FAST}, **carol).status == 200
    with SocketClient(server.url, GENERATE, carol) as first, SocketClient(server.url, CHAT, carol) as second:
        for client in (first, second, first, second):
            client.say(message="x", simulator=FAST).until("end")
        first.say(prompt="x", simulator=FAST).until("error")
        refused = first.messages[-1]
        assert (refused["code"], refused["retryable"]) == ("rate_limited", True)
        assert refused["retry_after_seconds"] >= 1
        # It is the message that was refused, and not the socket.
        first.say(type="ping").until("pong")
    assert ask(server.url, "/api/v1/generate", {"prompt": "x", "simulator": FAST}, **carol).status == 429


def test_a_token_that_expires_ends_its_socket_and_another_one_goes_on(server: Gunicorn) -> None:
    pace = {"tokens": 400, "tokens_per_second": 20, "first_token_ms": 0}
    with SocketClient(server.url, CHAT, issued(server)) as client:
        client.say(message="Hello", simulator=pace)
        assert client.close_code() == 3000
        assert client.messages[-1]["reason"] == "reauthenticate"
        last = client.messages[-1]["last_event_id"]
        assert last == client.messages[-2]["id"]
    with SocketClient(server.url, CHAT, issued(server)) as again:
        again.say(type="resume", last_event_id=last).until("token")
        assert again.messages[1]["index"] == client.messages[-2]["index"] + 1
        again.say(type="cancel").until("error")


def test_who_leaves_while_the_upstream_is_silent_is_noticed_at_once(
    server: Gunicorn, keys: ApiKeys, upstream: ScriptedUpstream
) -> None:
    upstream.script("silent", stall_after=0)
    client = SocketClient(server.url, GENERATE, keys.headers("alice"))
    client.say(prompt="x", model="silent", on_disconnect="cancel").until("start")
    upstream.wait_started("silent")
    client.drop()
    assert upstream.wait_closed("silent", seconds=10).tokens == 0


def test_many_who_are_not_known_leave_nothing_behind(server: Gunicorn) -> None:
    def refused() -> int:
        return server.log.count('"outcome":"unauthorized"')

    before = refused()
    assert {status(server, GENERATE) for _ in range(100)} == {401}
    deadline = monotonic() + 20
    while refused() < before + 100:
        assert monotonic() < deadline
        sleep(0.05)
    assert "Traceback" not in server.log
