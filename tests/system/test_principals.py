"""Whose a stream is: nobody else reads it, stops it, or joins it by its key, through the whole chain."""

from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest

from tests.support import server
from tests.support.api_keys import ApiKeys
from tests.support.call import Call, ask
from tests.support.chain import Chain
from tests.support.socket_client import SocketClient
from tests.support.surfaces import OPENAI
from tests.support.workers import sockets, until

PATH = "/api/v1/generate"


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> ApiKeys:
    return ApiKeys(tmp_path_factory.mktemp("keys"), alice="pro", bob="pro")


@pytest.fixture(scope="module")
def chain(keys: ApiKeys) -> Iterator[Chain]:
    with Chain(keys.environment, workers=2) as running:
        yield running


def question(tokens: int, pace: float) -> dict[str, Any]:
    return {"prompt": "Mine.", "stream": True, "simulator": {"tokens": tokens, "tokens_per_second": pace}}


def request(chain: Chain, method: str, path: str, headers: dict[str, str]) -> int:
    """The status of a request without a body."""
    return server.request(chain.port, method, path, headers=headers).status


def test_the_stream_of_another_is_not_there_on_any_verb(chain: Chain, keys: ApiKeys) -> None:
    alice, bob = keys.headers("alice"), keys.headers("bob")
    with Call(chain.url, PATH, question(60, 20), headers=alice) as call:
        call.until(5)
        stream_id, last = call.headers["x-stream-id"], call.frames[2].id
        path = f"/api/v1/streams/{stream_id}"
        cursor = {"Last-Event-ID": last}
        asked = [
            request(chain, "GET", path, bob),
            request(chain, "GET", path, bob | cursor),
            request(chain, "GET", f"{path}?last_event_id={last}", bob),
            request(chain, "GET", f"{path}/status", bob),
            request(chain, "DELETE", path, bob),
            request(chain, "GET", "/api/v1/stream?prompt=x", bob | cursor),
            Call(chain.url, PATH, question(3, 0), headers=bob | cursor).finish().status,
        ]
        assert asked == [404] * len(asked)
        # And it has not stopped.
        assert call.finish().verdict == "complete"
    again = Call(chain.url, path, headers=alice | cursor).finish()
    assert again.frames == call.frames[3:]
    assert Call(chain.url, path, headers=bob).finish().status == 404


def test_nor_is_it_by_another_name_on_another_surface(chain: Chain, keys: ApiKeys) -> None:
    """As a response, as a task, in another version of the API: what belongs to one caller has many addresses."""
    alice, bob = keys.headers("alice"), keys.headers("bob")
    lasting = {"tokens": 400, "tokens_per_second": 25}
    wanted = {"model": "simulator", "input": "Mine.", "background": True, "simulator": lasting}
    response = Call(chain.url, "/v1/responses", wanted, headers=alice).finish()
    name, stream_id = response.json["id"], response.headers["x-stream-id"]
    task = Call(chain.url, "/api/v1/tasks", {"prompts": ["Mine."]}, headers=alice).finish()
    task_id = task.headers["x-stream-id"]
    following = {"model": "simulator", "input": "And?", "previous_response_id": name}
    asked = [
        *[request(chain, "GET", f"/api/v{version}/streams/{stream_id}", bob) for version in (1, 2)],
        *[request(chain, "DELETE", f"/api/v{version}/streams/{stream_id}", bob) for version in (1, 2)],
        request(chain, "GET", f"/v1/responses/{name}", bob),
        request(chain, "GET", f"/v1/responses/{name}?stream=true&starting_after=1", bob),
        request(chain, "POST", f"/v1/responses/{name}/cancel", bob),
        Call(chain.url, "/v1/responses", following, headers=bob).finish().status,
        request(chain, "GET", f"/api/v1/tasks/{task_id}", bob),
        request(chain, "GET", f"/api/v1/tasks/{task_id}/events", bob),
        request(chain, "DELETE", f"/api/v1/tasks/{task_id}", bob),
        request(chain, "GET", f"/api/v1/streams/{task_id}", bob),
    ]
    assert asked == [404] * len(asked)
    assert Call(chain.url, f"/v1/responses/{name}", headers=alice).finish().json["status"] == "in_progress"
    assert request(chain, "DELETE", f"/api/v1/streams/{stream_id}", alice) == 204


def test_a_key_of_another_joins_nothing(chain: Chain, keys: ApiKeys) -> None:
    """The key is the caller's own: by the same one, two callers have a stream each."""
    key = {"Idempotency-Key": "the-same"}
    made = [Call(chain.url, PATH, question(5, 0), headers=keys.headers(who) | key).finish() for who in ("alice", "bob")]
    assert [call.verdict for call in made] == ["complete"] * 2
    assert made[0].headers["x-stream-id"] != made[1].headers["x-stream-id"]
    other = Call(chain.url, PATH, question(6, 0), headers=keys.headers("bob") | {"Idempotency-Key": "bobs"}).finish()
    assert other.verdict == "complete"


def test_credentials_do_not_stay_on_a_connection(chain: Chain, keys: ApiKeys, tmp_path: Path) -> None:
    """A request without any is refused behind one that had some, also where that stream was left half-way."""
    for _ in range(4):  # whichever worker and connection of NGINX's it is
        with Call(chain.url, PATH, question(100, 50), headers=keys.headers("alice")) as left:
            left.until(2).leave("rst")
        assert ask(chain.url, PATH, question(3, 0)).status == 401
    connection = HTTPConnection("127.0.0.1", chain.port, timeout=10)
    found = []
    for headers in (keys.headers("alice"), {}, keys.headers("bob"), {}):
        connection.request("GET", "/v1/models", headers=headers)
        answer = connection.getresponse()
        answer.read()
        found.append((answer.status, answer.headers["X-Request-ID"]))
    connection.close()
    assert [status for status, _ in found] == [200, 401, 200, 401]
    assert len({name for _, name in found}) == 4


def test_a_key_that_is_withdrawn_ends_what_it_opened_and_nothing_else(chain: Chain, keys: ApiKeys) -> None:
    """A socket went on to take messages, and a stream to say tokens, for as long as each lasted."""
    stolen = "sk-sluice-stolen-0000000000000000000000000000000"
    lasting = {"tokens": 400, "tokens_per_second": 20}
    shown = {"Authorization": f"Bearer {stolen}"}
    keys.add(stolen, "alice")

    def is_known() -> bool:
        return {Call(worker, "/v1/models", headers=shown).finish().status for worker in sockets(chain)} == {200}

    until(is_known, 10, "the key is known to all workers")
    with (
        Call(chain.url, PATH, question(400, 20), headers=shown) as native,
        Call(chain.url, OPENAI.path, OPENAI.body("simulator", simulator=lasting), headers=shown) as openai,
        Call(chain.url, PATH, question(400, 20), headers=keys.headers("alice")) as other,
        SocketClient(chain.url, "/api/v1/ws/generate", shown) as answered,
        SocketClient(chain.url, "/api/v1/ws/generate", shown) as resting,
    ):
        answered.say(prompt="x", simulator=lasting).until("token", 3)
        for call in (native, openai, other):
            call.until(3)
        keys.remove(stolen)
        native.finish(15)
        openai.finish(15)
        assert (answered.close_code(), resting.close_code()) == (3000, 3000)
        assert not other.until(len(native.frames) + 100).terminals
    assert (native.frames[-1].event, native.frames[-1].json()["reason"]) == ("reconnect", "reauthenticate")
    assert openai.frames[-1].json()["error"]["code"] == "token_expired"
    path = f"/api/v1/streams/{native.headers['x-stream-id']}"
    assert request(chain, "GET", path, shown) == 401
    # The caller's other key is as good for it as this one was.
    with Call(chain.url, path, headers=keys.headers("alice") | {"Last-Event-ID": native.frames[-2].id}) as back:
        back.until(3)
    assert request(chain, "DELETE", path, keys.headers("alice")) == 204
