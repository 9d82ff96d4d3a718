"""The same as `test_garbage.py` for those who are known, counted and bounded, and for every other way to ask."""

from collections.abc import Iterator
from itertools import count
from typing import Any

import msgspec
import pytest

from tests.support.api_keys import ApiKeys
from tests.support.call import Call, ask
from tests.support.garbage import LOOK, left_by
from tests.support.gunicorn import Gunicorn
from tests.support.raw_socket import CONTINUATION, RawSocket, frame
from tests.support.socket_client import SocketClient
from tests.support.surfaces import NATIVE, SURFACES, Surface

# More than is asked for here; all are counted.
TIERS = {
    "pro": {
        "requests_per_minute": 10_000,
        "requests_per_hour": 100_000,
        "tokens_per_minute": 10_000_000,
        "concurrent_streams": 100,
        "max_tokens": 1_000,
        "priority": 3,
    },
    "free": {"requests_per_minute": 1},
}
FAST = {"tokens": 5, "tokens_per_second": 100, "first_token_ms": 0}
LONG = {"tokens": 900, "tokens_per_second": 50, "first_token_ms": 0}
_numbers = count()


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> ApiKeys:
    return ApiKeys(tmp_path_factory.mktemp("garbage"), alice="pro", tina="free")


@pytest.fixture(scope="module")
def server(keys: ApiKeys) -> Iterator[Gunicorn]:
    """One worker of one place."""
    config = keys.path.with_name("models.json")
    config.write_bytes(msgspec.json.encode({"models": {"simulator": [{"provider": "simulator"}]}, "tiers": TIERS}))
    env = {"SLUICE_CONFIG": str(config), "SLUICE_STREAMS_MAX": "1", "SLUICE_ADMISSION_SECONDS": "1.5"}
    with Gunicorn(env | keys.environment, poke=LOOK) as running:
        yield running


@pytest.fixture
def alice(keys: ApiKeys) -> dict[str, str]:
    return keys.headers("alice")


def post(server: Gunicorn, headers: dict[str, str], path: str, **body: Any) -> Call:
    with Call(server.url, path, body, headers=headers) as call:
        return call.finish()


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "batch"])
@pytest.mark.parametrize("surface", SURFACES, ids=lambda surface: surface.name)
def test_an_answer_within_limits_leaves_nothing(
    server: Gunicorn, alice: dict[str, str], surface: Surface, stream: bool
) -> None:
    def request() -> None:
        body = surface.body("simulator", stream=stream, simulator=FAST)
        assert post(server, alice, surface.path, **body).verdict == "complete"

    assert left_by(server, request) == {}


def test_a_refusal_leaves_nothing(server: Gunicorn, keys: ApiKeys) -> None:
    tina = keys.headers("tina")
    post(server, tina, NATIVE.path, **NATIVE.body("simulator", simulator=FAST))

    def request() -> None:
        assert ask(server.url, NATIVE.path, NATIVE.body("simulator")).status == 401
        assert post(server, tina, NATIVE.path, **NATIVE.body("simulator")).status == 429

    assert left_by(server, request) == {}


@pytest.mark.parametrize("path", ["/api/v1/ws/generate", "/api/v1/ws/chat/{number}"])
def test_a_web_socket_leaves_nothing(server: Gunicorn, alice: dict[str, str], path: str) -> None:
    def request() -> None:
        with SocketClient(server.url, path.format(number=f"socket-{next(_numbers)}"), alice) as client:
            client.say(type="message", message="Hello", simulator=FAST).until("end")

    assert left_by(server, request) == {}


def test_a_web_socket_that_is_dropped_amid_its_answer_leaves_nothing(server: Gunicorn, alice: dict[str, str]) -> None:
    def request() -> None:
        client = SocketClient(server.url, "/api/v1/ws/generate", alice)
        client.say(prompt="Hello", simulator=LONG, on_disconnect="cancel").until("token", 3)
        client.drop()

    assert left_by(server, request) == {}


def test_a_web_socket_that_is_refused_or_ends_with_a_fault_leaves_nothing(
    server: Gunicorn, alice: dict[str, str]
) -> None:
    def request() -> None:
        with RawSocket(server.url, "/api/v1/ws/generate") as client:
            assert client.status == 401
        with RawSocket(server.url, "/api/v1/ws/generate", **alice) as client:
            client.send(frame(CONTINUATION, b"of nothing"))
            assert client.close_code() == 1002

    assert left_by(server, request) == {}


def test_a_task_leaves_nothing(server: Gunicorn, alice: dict[str, str]) -> None:
    def request() -> None:
        task = post(server, alice, "/api/v1/tasks", prompts=["a", "b", "c"], simulator=FAST).json["task_id"]
        with Call(server.url, f"/api/v1/tasks/{task}/events", headers=alice) as events:
            assert events.finish().verdict == "complete"

    assert left_by(server, request) == {}


def test_a_response_leaves_nothing(server: Gunicorn, alice: dict[str, str]) -> None:
    def request() -> None:
        body = {"model": "simulator", "input": "Hello", "stream": True, "simulator": FAST}
        assert b"response.completed" in post(server, alice, "/v1/responses", **body).body

    assert left_by(server, request) == {}


def test_a_conversations_turn_leaves_nothing(server: Gunicorn, alice: dict[str, str]) -> None:
    name = f"turns-{next(_numbers)}"

    def request() -> None:
        body = {"message": "Hello", "conversation_id": name, "stream": True, "simulator": FAST}
        assert post(server, alice, "/api/v1/chat", **body).verdict == "complete"

    assert left_by(server, request) == {}


def test_an_answer_that_is_replayed_leaves_nothing(server: Gunicorn, alice: dict[str, str]) -> None:
    streams: set[str] = set()

    def request() -> None:
        options = {"stream": True, "seed": 7, "cache": True, "simulator": FAST}
        answer = post(server, alice, "/api/v2/generate", input="Hello", options=options)
        assert answer.verdict == "complete"
        streams.add(answer.headers["x-stream-id"])

    assert left_by(server, request) == {}
    assert len(streams) == 1


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "batch"])
def test_one_that_finds_no_place_leaves_nothing(server: Gunicorn, alice: dict[str, str], stream: bool) -> None:
    def request() -> None:
        with Call(server.url, NATIVE.path, NATIVE.body("simulator", simulator=LONG), headers=alice) as running:
            running.until(2)
            assert post(server, alice, NATIVE.path, **NATIVE.body("simulator", stream=stream)).status == 503

    assert left_by(server, request) == {}


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "batch"])
def test_one_that_waited_for_its_place_leaves_nothing(server: Gunicorn, alice: dict[str, str], stream: bool) -> None:
    def request() -> None:
        with Call(server.url, NATIVE.path, NATIVE.body("simulator", simulator=LONG), headers=alice) as running:
            running.until(2)
            body = NATIVE.body("simulator", stream=stream, simulator=FAST)
            with Call(server.url, NATIVE.path, body, headers=alice) as waiting:
                running.until(8)  # by then the other one is in the queue
                running.leave()
                assert waiting.finish().verdict == "complete"

    assert left_by(server, request) == {}


def test_one_that_leaves_while_it_waits_leaves_nothing(server: Gunicorn, alice: dict[str, str]) -> None:
    def request() -> None:
        with Call(server.url, NATIVE.path, NATIVE.body("simulator", simulator=LONG), headers=alice) as running:
            running.until(2)
            with Call(server.url, NATIVE.path, NATIVE.body("simulator", simulator=FAST), headers=alice) as waiting:
                running.until(8)  # by then it is in the queue
                waiting.leave()
            running.until(14)  # and by then it is out of it

    assert left_by(server, request) == {}
