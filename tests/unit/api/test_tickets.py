"""When a ticket is opened, as its store sees it: by the stream that is there for it, and not by what was refused."""

import json
from collections.abc import Iterator
from hashlib import sha256
from typing import Any
from urllib.parse import urlencode

import pytest
import yaml

from app.security.tickets import OPEN_SECONDS_MAX
from tests.support.api_keys import ApiKeys, key_of
from tests.support.redis import RedisServer
from tests.support.server import AppServer, HTTPAnswer
from tests.support.socket_client import SocketClient

QUICK = {"tokens": 2, "tokens_per_second": 0, "first_token_ms": 0}
STREAM = "/api/v1/stream"
TIERS: dict[str, dict[str, int]] = {"free": {}, "pro": {}, "one": {"requests_per_hour": 1}}


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory, redis: RedisServer) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("tickets")
    keys = ApiKeys(folder, alice="pro", bob="one")
    config = folder / "models.yaml"
    config.write_text(yaml.safe_dump({"models": {"simulator": [{"provider": "simulator"}]}, "tiers": TIERS}))
    return keys.environment | {"SLUICE_CONFIG": str(config), "SLUICE_LIMITS_STORE": redis.url}


@pytest.fixture(scope="module")
def server(settings: dict[str, str]) -> Iterator[AppServer]:
    with AppServer(**settings) as started:
        yield started


class Ticket:
    """One of somebody's, and what the store has of it."""

    def __init__(self, server: AppServer, redis: RedisServer, scope: str = "create", who: str = "alice") -> None:
        headers = {"Authorization": f"Bearer {key_of(who)}"}
        self._server, self._redis = server, redis
        self.text = str(server.post("/api/v1/tickets", {"scope": scope}, headers).json["ticket"])

    def show(self, path: str = STREAM, **query: Any) -> HTTPAnswer:
        return self._server.get(self.path(path, **query))

    def path(self, path: str, **query: Any) -> str:
        return f"{path}?{urlencode(query | {'ticket': self.text})}"

    def begin(self, **query: Any) -> HTTPAnswer:
        return self.show(prompt="Hello", simulator=json.dumps(QUICK), **query)

    @property
    def seconds_left(self) -> float:
        with self._redis.client() as client:
            return float(client.pttl(f"sluice:{{b0}}:k:{sha256(self.text.encode()).hexdigest()}")) / 1000


@pytest.mark.parametrize(
    ("path", "query", "status"),
    [
        (STREAM, {}, 422),
        (STREAM, {"prompt": "Hello", "max_tokens": 0}, 422),
        (STREAM, {"prompt": "Hello", "model": "none"}, 404),
        (STREAM, {"prompt": "Hello", "last_event_id": "x"}, 400),
        (f"/api/v1/streams/{'x' * 24}", {}, 404),
    ],
)
def test_what_is_refused_opens_nothing_and_the_ticket_goes_on_to_its_minute(
    server: AppServer, redis: RedisServer, path: str, query: dict[str, Any], status: int
) -> None:
    """It was good for an hour more, in which it could still begin a stream."""
    ticket = Ticket(server, redis)
    assert ticket.show(path, **query).status == status
    assert 0 < ticket.seconds_left <= OPEN_SECONDS_MAX
    assert ticket.begin().status == 200
    assert ticket.seconds_left > OPEN_SECONDS_MAX


def test_a_limit_that_is_reached_opens_nothing(server: AppServer, redis: RedisServer) -> None:
    ticket = Ticket(server, redis, who="bob")
    body = {"prompt": "Hello", "simulator": QUICK}
    assert server.post("/api/v1/generate", body, {"X-API-Key": key_of("bob")}).status == 200
    refused = ticket.begin()
    assert (refused.status, refused.json["error"]["code"]) == (429, "rate_limited")
    assert 0 < ticket.seconds_left <= OPEN_SECONDS_MAX


def test_what_it_is_not_for_opens_nothing(server: AppServer, redis: RedisServer) -> None:
    ticket = Ticket(server, redis, "conversation:c1")
    assert ticket.begin().status == 403
    assert 0 < ticket.seconds_left <= OPEN_SECONDS_MAX


def test_a_socket_that_says_nothing_opens_no_stream_and_its_first_message_does(
    server: AppServer, redis: RedisServer
) -> None:
    url = f"http://127.0.0.1:{server.port}"
    ticket = Ticket(server, redis)
    with SocketClient(url, ticket.path("/api/v1/ws/generate")) as client:
        client.say(type="ping").until("pong")
        client.say(prompt="Hello", model="none").until("error")
        assert 0 < ticket.seconds_left <= OPEN_SECONDS_MAX
        client.say(prompt="Hello", simulator=QUICK).until("end")
        assert ticket.seconds_left > OPEN_SECONDS_MAX
    conversation = Ticket(server, redis, "conversation:c1")
    with SocketClient(url, conversation.path("/api/v1/ws/chat/c1")):
        assert conversation.seconds_left > OPEN_SECONDS_MAX


def test_a_ticket_whose_stream_is_gone_begins_no_other(
    server: AppServer, settings: dict[str, str], redis: RedisServer
) -> None:
    """The store of limits may remember the ticket for longer than the log has its stream."""
    ticket = Ticket(server, redis)
    assert ticket.begin().headers["x-stream-id"] == ticket.begin().headers["x-stream-id"]
    with AppServer(**settings) as another:  # with a log in memory of its own
        gone = another.get(ticket.path(STREAM, prompt="Hello", simulator=json.dumps(QUICK)))
        assert (gone.status, gone.json["error"]["code"]) == (404, "not_found")
        assert "x-stream-id" not in gone.headers
