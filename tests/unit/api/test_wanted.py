"""What comes first of a request that generates: its limits, before anything that was said before is read for it."""

import threading
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from tests.support.api_keys import ApiKeys
from tests.support.server import AppServer, HTTPAnswer
from tests.support.socket_client import SocketClient
from tests.support.turns import TURNS_MAX

QUICK = {"tokens": 2, "tokens_per_second": 0, "first_token_ms": 0}
SLOW = {"tokens": 1000, "tokens_per_second": 20, "first_token_ms": 0}
FEW = 3
TIERS: dict[str, dict[str, int]] = {"free": {}, "few": {"requests_per_hour": FEW}, "one": {"concurrent_streams": 1}}
NOT_THERE = "resp_" + "x" * 24


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> ApiKeys:
    tiers = {"ana": "few", "bob": "few", "cara": "one"}
    callers = {f"{name}-{turn}": tier for turn in range(TURNS_MAX) for name, tier in tiers.items()}
    return ApiKeys(tmp_path_factory.mktemp("wanted"), **callers)


@pytest.fixture(scope="module")
def server(keys: ApiKeys) -> Iterator[AppServer]:
    config = keys.path.parent / "models.yaml"
    config.write_text(yaml.safe_dump({"models": {"simulator": [{"provider": "simulator"}]}, "tiers": TIERS}))
    with AppServer(**keys.environment, SLUICE_CONFIG=str(config)) as started:
        yield started


def respond(server: AppServer, keys: ApiKeys, who: str, **fields: Any) -> HTTPAnswer:
    body = {"model": "simulator", "input": "Hello", "simulator": QUICK, **fields}
    return server.post("/v1/responses", body, keys.headers(who))


def chat(server: AppServer, keys: ApiKeys, who: str, **fields: Any) -> HTTPAnswer:
    body = {"message": "Hello", "conversation_id": "c1", "simulator": QUICK, **fields}
    return server.post("/api/v1/chat", body, keys.headers(who))


def test_a_response_that_goes_on_is_limited_before_the_one_before_it_is_read(
    server: AppServer, keys: ApiKeys, turn: int
) -> None:
    """Each refused request had read and encoded up to eight megabytes."""
    for _ in range(2 * FEW):
        assert respond(server, keys, f"ana-{turn}", previous_response_id=NOT_THERE).status == 404
    first = respond(server, keys, f"ana-{turn}")
    assert first.headers["x-ratelimit-remaining"] == str(FEW - 1), "what was refused has taken nothing"
    again = respond(server, keys, f"ana-{turn}", previous_response_id=first.json["id"])
    assert [again.status, again.headers["x-ratelimit-remaining"]] == [200, str(FEW - 2)]
    assert respond(server, keys, f"ana-{turn}").status == 200
    for before in (first.json["id"], NOT_THERE):
        refused = respond(server, keys, f"ana-{turn}", previous_response_id=before)
        assert refused.status == 429, "and not 404"
        assert int(refused.headers["retry-after"]) > 0


def test_a_turn_of_a_conversation_counts_once(server: AppServer, keys: ApiKeys, turn: int) -> None:
    for left in reversed(range(FEW)):
        assert chat(server, keys, f"bob-{turn}").headers["x-ratelimit-remaining"] == str(left)
    assert chat(server, keys, f"bob-{turn}").status == 429


def test_whoever_has_a_stream_too_many_is_told_so_and_not_what_his_conversation_does(
    server: AppServer, keys: ApiKeys, turn: int
) -> None:
    with SocketClient(f"http://127.0.0.1:{server.port}", "/api/v1/ws/chat/c1", keys.headers(f"cara-{turn}")) as client:
        client.say(message="Hello", simulator=SLOW).until("token")
        refused = chat(server, keys, f"cara-{turn}")
        assert (refused.status, refused.json["error"]["code"]) == (429, "rate_limited")
        client.say(type="cancel").until("error")


def test_a_key_joins_its_turn_though_there_is_no_other_place(server: AppServer, keys: ApiKeys, turn: int) -> None:
    headers = keys.headers(f"cara-{turn}") | {"Idempotency-Key": "turn"}
    body = {"message": "Hello", "conversation_id": "c2", "simulator": {**SLOW, "tokens": 20}}
    answers: list[HTTPAnswer] = []
    asking = [
        threading.Thread(target=lambda: answers.append(server.post("/api/v1/chat", body, headers))) for _ in range(3)
    ]
    for thread in asking:
        thread.start()
    for thread in asking:
        thread.join()
    assert {answer.status for answer in answers} == {200}
    assert len({answer.headers["x-stream-id"] for answer in answers}) == 1
