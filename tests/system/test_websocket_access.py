"""Who may open a WebSocket, how much may be asked for on one, and for how long: through NGINX."""

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from time import monotonic
from urllib.parse import urlencode
from urllib.request import urlopen

import msgspec
import pytest

from tests.support.api_keys import ApiKeys, key_of
from tests.support.call import ask
from tests.support.chain import Chain
from tests.support.footprint import footprint, inside_env
from tests.support.held import outlast
from tests.support.hurry import PONG_SECONDS
from tests.support.raw_socket import RawSocket
from tests.support.scrape import Scrape, scrape, scrape_until
from tests.support.socket_client import SocketClient
from tests.support.upstream import ScriptedUpstream

GENERATE, CHAT = "/api/v1/ws/generate", "/api/v1/ws/chat/c1"
# Longer than any other test here needs its ticket.
TOKEN_SECONDS = 6
PACED = {"tokens": 400, "tokens_per_second": 20, "first_token_ms": 0}
FAST = {"tokens": 2, "tokens_per_second": 0, "first_token_ms": 0}
HEARTBEAT_SECONDS = 1
HURRY = "tests.support.hurry:socket_pings"
STRANGERS = 500
REFUSED = "sluice_refused_total"
STRANGERS_BYTES_MAX = 512 * 1024


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("sockets")


@pytest.fixture(scope="module")
def keys(folder: Path) -> ApiKeys:
    return ApiKeys(folder, alice="pro", bob="pro", carol="free", dora="free")


@pytest.fixture(scope="module")
def chain(folder: Path, keys: ApiKeys, upstream: ScriptedUpstream) -> Iterator[Chain]:
    config = folder / "models.json"
    silent = [{"provider": "openai", "base_url": upstream.base_url, "model": "silent", "first_token_seconds": 60}]
    tiers = {"free": {"requests_per_minute": 5}, "pro": {}}
    models = {"simulator": [{"provider": "simulator"}], "silent": silent}
    config.write_bytes(msgspec.json.encode({"models": models, "tiers": tiers}))
    settings = {
        "SLUICE_CONFIG": str(config),
        "SLUICE_TOKEN_SECONDS": str(TOKEN_SECONDS),
        "SLUICE_HEARTBEAT_SECONDS": str(HEARTBEAT_SECONDS),
    }
    with Chain(settings | keys.environment | inside_env(folder, HURRY), workers=1) as running:
        yield running


def ticket(chain: Chain, keys: ApiKeys, scope: str, who: str = "alice") -> str:
    return str(ask(chain.url, "/api/v1/tickets", {"scope": scope}, **keys.headers(who)).json["ticket"])


def issued(chain: Chain) -> dict[str, str]:
    """A token in return for bob's key."""
    form = urlencode({"grant_type": "client_credentials", "client_secret": key_of("bob")}).encode()
    with urlopen(f"{chain.url}/api/v1/auth/token", form, timeout=20) as answer:
        return {"Authorization": f"Bearer {json.load(answer)['access_token']}"}


def status(chain: Chain, path: str, **headers: str) -> int:
    with RawSocket(chain.url, path, **headers) as client:
        return client.status


def test_nobody_comes_in_who_is_not_known_and_is_told_so_by_a_status(chain: Chain, keys: ApiKeys) -> None:
    for path in (GENERATE, CHAT):
        assert status(chain, path) == 401
        assert status(chain, path, Authorization="Bearer no-such-key") == 401
        assert status(chain, path, **keys.headers("alice")) == 101
        with RawSocket(chain.url, path) as client:
            assert "www-authenticate: bearer" in client.head


def test_only_pages_of_our_own_open_sockets(chain: Chain, keys: ApiKeys) -> None:
    host = chain.url.removeprefix("http://")
    alice = keys.headers("alice")
    for origin in (f"http://{host}", f"https://{host}", f"HTTP://{host}"):
        assert status(chain, GENERATE, Origin=origin, **alice) == 101
    evil = ("http://evil.example", "null", "", f"http://{host}.evil.example", f"http://evil.example/{host}", "file://")
    for origin in (*evil, f"http://x@{host}", f"http://{host}1"):
        assert status(chain, GENERATE, Origin=origin, **alice) == 403
        assert status(chain, GENERATE, Origin=origin) == 403


def test_a_ticket_opens_the_one_thing_that_it_is_for(chain: Chain, keys: ApiKeys) -> None:
    mine = ticket(chain, keys, "conversation:c1")
    with SocketClient(chain.url, f"{CHAT}?ticket={mine}") as client:
        client.say(message="Hello", simulator=FAST).until("end")
        first = client.last_id
    assert status(chain, f"/api/v1/ws/chat/c2?ticket={mine}") == 403
    assert status(chain, f"{GENERATE}?ticket={mine}") in (401, 403)
    other = ask(chain.url, "/api/v1/generate", {"prompt": "x", "simulator": FAST}, **keys.headers("alice"))
    with SocketClient(chain.url, f"{CHAT}?ticket={mine}") as client:
        client.say(type="resume", last_event_id=first).until("end")
        client.say(type="resume", stream_id=other.json["stream_id"]).until("error")
        assert client.messages[-1]["code"] == "not_found"
    once = ticket(chain, keys, "create")
    with SocketClient(chain.url, f"{GENERATE}?ticket={once}") as client:
        client.say(prompt="one", simulator=FAST).until("end")
        client.say(prompt="two", simulator=FAST).until("error")
        assert client.messages[-1]["code"] == "idempotency_mismatch"
    assert mine not in chain.log


def test_a_conversation_and_a_stream_are_their_callers_own(chain: Chain, keys: ApiKeys) -> None:
    with (
        SocketClient(chain.url, CHAT, keys.headers("alice")) as alice,
        SocketClient(chain.url, CHAT, keys.headers("bob")) as bob,
    ):
        alice.say(message="Hello", simulator=FAST).until("end")
        bob.say(type="resume", last_event_id=alice.messages[1]["id"]).until("error")
        assert [message["code"] for message in bob.messages] == ["not_found"]
        bob.say(message="a b c", simulator=FAST).until("end")
        assert bob.messages[-1]["usage"]["input_tokens"] == 3
        assert "a b c" not in [message.get("message") for message in alice.messages]


def test_messages_count_as_requests_do_in_the_same_buckets(chain: Chain, keys: ApiKeys) -> None:
    carol = keys.headers("carol")
    assert ask(chain.url, "/api/v1/generate", {"prompt": "x", "simulator": FAST}, **carol).status == 200
    with SocketClient(chain.url, GENERATE, carol) as first, SocketClient(chain.url, CHAT, carol) as second:
        for client in (first, second, first, second):
            client.say(message="x", simulator=FAST).until("end")
        first.say(prompt="x", simulator=FAST).until("error")
        refused = first.messages[-1]
        assert (refused["code"], refused["retryable"]) == ("rate_limited", True)
        assert refused["retry_after_seconds"] >= 1
        # It is the message that was refused, and not the socket.
        first.say(type="ping").until("pong")
    assert ask(chain.url, "/api/v1/generate", {"prompt": "x", "simulator": FAST}, **carol).status == 429


def test_a_token_that_expires_ends_its_socket_and_another_one_goes_on(chain: Chain) -> None:
    with SocketClient(chain.url, CHAT, issued(chain)) as client:
        client.say(message="Hello", simulator=PACED)
        assert client.close_code() == 3000
        assert client.messages[-1]["reason"] == "reauthenticate"
        last = client.messages[-1]["last_event_id"]
        assert last == client.messages[-2]["id"]
    with SocketClient(chain.url, CHAT, issued(chain)) as again:
        again.say(type="resume", last_event_id=last).until("token")
        assert again.messages[1]["index"] == client.messages[-2]["index"] + 1
        again.say(type="cancel").until("error")


def test_a_conversations_ticket_asks_for_as_long_as_a_token_however_often_it_comes_back(
    chain: Chain, keys: ApiKeys
) -> None:
    """It did so for an hour, and one who found it in a history could."""
    path = f"/api/v1/ws/chat/c3?ticket={ticket(chain, keys, 'conversation:c3')}"
    with SocketClient(chain.url, path) as client:
        client.say(message="One", simulator=FAST).until("end")
    with SocketClient(chain.url, path) as client:
        client.say(message="Two", simulator=PACED)
        assert client.close_code() == 3000
        assert client.messages[-1]["reason"] == "reauthenticate"
    assert status(chain, path) == 401
    another = f"/api/v1/ws/chat/c3?ticket={ticket(chain, keys, 'conversation:c3')}"
    with SocketClient(chain.url, another) as client:
        client.say(type="resume").until("token")
        client.say(type="cancel").until("error")


def test_who_leaves_while_the_upstream_is_silent_is_noticed_at_once(
    chain: Chain, keys: ApiKeys, upstream: ScriptedUpstream
) -> None:
    upstream.script("silent", stall_after=0)
    client = SocketClient(chain.url, GENERATE, keys.headers("alice"))
    client.say(prompt="x", model="silent", on_disconnect="cancel").until("start")
    upstream.wait_started("silent")
    client.drop()
    assert upstream.wait_closed("silent", seconds=10).tokens == 0


def test_many_who_are_not_let_in_leave_nothing_behind(chain: Chain, keys: ApiKeys, folder: Path) -> None:
    """All at a time, half of them unknown and half of a foreign page: nothing is kept for any of them, not even for as
    long as its connection to NGINX is open."""
    pid = chain.worker_pids()[0]
    outcomes: dict[str, dict[str, str]] = {
        "unauthorized": {},
        "forbidden": {"Origin": "http://evil.example"} | keys.headers("alice"),
    }
    for headers in outcomes.values():  # the first ones have something made that stays
        for _ in range(20):
            status(chain, GENERATE, **headers)
    before = scrape(chain.metrics_url)

    def are_counted(found: Scrape) -> bool:
        refused = [found.value(REFUSED, reason=each) - before.value(REFUSED, reason=each) for each in outcomes]
        return min(refused) >= STRANGERS // 2

    files, private, _, tasks = footprint(pid, folder)
    with ExitStack() as stack:
        for outcome, headers in outcomes.items():
            for _ in range(STRANGERS // 2):
                client = stack.enter_context(RawSocket(chain.url, GENERATE, **headers))
                assert client.status == {"unauthorized": 401, "forbidden": 403}[outcome]
        scrape_until(chain.metrics_url, are_counted)
        after = footprint(pid, folder)
        assert (after.files - files, after.tasks - tasks) == (Counter(), Counter())
        assert after.private_bytes - private < STRANGERS_BYTES_MAX
    assert "Traceback" not in chain.log


def test_who_says_nothing_hears_from_the_server_in_time(chain: Chain, keys: ApiKeys) -> None:
    """At rest, and while an answer does not come: a proxy on the way ends what is silent for too long."""
    with RawSocket(chain.url, CHAT, **keys.headers("alice")) as client:
        began = monotonic()
        assert [client.message() for _ in range(2)] == [{"type": "ping"}] * 2
        assert monotonic() - began > HEARTBEAT_SECONDS
        client.say(message="x", simulator=FAST | {"first_token_ms": 3500 * HEARTBEAT_SECONDS})
        heard: list[str] = []
        while not heard or heard[-1] != "token":
            heard.append(client.message()["type"])
        assert heard[heard.index("start") :].count("ping") >= 2


def test_a_worker_that_was_held_takes_nobody_for_dead_whose_pong_lies_unread(chain: Chain, keys: ApiKeys) -> None:
    """`make soak` does it by the waits that are shipped, of which this one has shorter ones."""
    outlast(chain, GENERATE, PONG_SECONDS + 0.5, keys.headers("alice"))
