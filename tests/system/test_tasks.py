"""Tasks through the real chain: begun, looked at, followed, cancelled; and finished when their worker dies."""

import json
import os
import signal
import socket
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.support.api_keys import ApiKeys
from tests.support.call import Call, ask
from tests.support.chain import Chain
from tests.support.gunicorn import Gunicorn
from tests.support.workers import pid_behind, sockets, until_replaced

PACE = {"tokens": 10, "tokens_per_second": 20, "first_token_ms": 0, "seed": 3}
FAST = {"tokens": 5, "tokens_per_second": 0, "first_token_ms": 0}
PATH = "/api/v1/tasks"


@pytest.fixture(scope="module")
def chain() -> Iterator[Chain]:
    with Chain() as running:
        yield running


def body(prompts: int, **simulator: Any) -> dict[str, Any]:
    return {"prompts": [f"question {number}" for number in range(prompts)], "simulator": simulator}


def begin(target: str | Path, wanted: dict[str, Any], **headers: str) -> Call:
    made = ask(target, PATH, wanted, **headers)
    assert made.status == 202, made.body
    assert made.headers["location"] == f"{PATH}/{made.json['task_id']}"
    return made


def until_status(
    url: str, path: str, status: str, seconds: float = 30.0, headers: Mapping[str, str] | None = None
) -> Any:
    deadline = time.monotonic() + seconds
    while (found := ask(url, path, **(headers or {}))).json["status"] != status:
        assert found.status == 200
        assert time.monotonic() < deadline, found.json
        time.sleep(0.05)
    return found.json


def delete(url: str, path: str, **headers: str) -> int:
    parts = urlsplit(url)
    with socket.create_connection((parts.hostname, parts.port), 20) as client:
        lines = [f"DELETE {path} HTTP/1.1", "Host: x", "Connection: close"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        client.sendall("\r\n".join([*lines, "", ""]).encode())
        return int(client.recv(1000).split()[1])


def test_a_task_is_answered_at_once_and_its_result_is_fetched_later(chain: Chain) -> None:
    made = begin(chain.url, body(3, **FAST) | {"model": "simulator", "system": "Be brief."})
    assert (made.json["status"] in ("pending", "running", "completed"), made.json["total"]) == (True, 3)
    ended = until_status(chain.url, made.headers["location"], "completed")
    assert (ended["progress"], ended["completed"], ended["error"]) == (1.0, 3, None)
    assert [item["index"] for item in ended["result"]["items"]] == [0, 1, 2]
    alone = ask(chain.url, "/api/v1/generate", {"prompt": "question 1", "system": "Be brief.", "simulator": FAST})
    assert ended["result"]["items"][1]["response"] == alone.json["response"]
    assert ended["result"]["usage"]["output_tokens"] == 15


def test_progress_rises_from_0_to_1_and_can_be_followed_and_resumed(chain: Chain) -> None:
    path = begin(chain.url, body(9, **PACE)).headers["location"]
    with Call(chain.url, f"{path}/events") as call:
        call.until(3)
    with Call(chain.url, f"{path}/events", headers={"Last-Event-ID": call.frames[2].id or ""}) as rest:
        rest.finish()
    frames = [*call.frames[:3], *rest.frames]
    assert [frame.event for frame in frames] == ["progress"] * 10 + ["done"]
    shares = [frame.json()["progress"] for frame in frames]
    assert (shares[0], shares[-1]) == (0, 1)
    assert shares == sorted(shares)
    items = [frame.json()["item"] for frame in frames[1:-1]]
    assert sorted(item["index"] for item in items) == list(range(9))
    assert len({frame.id for frame in frames}) == 11
    assert ask(chain.url, f"{path}/events", Last_Event_ID=frames[-1].id or "").status == 204


def test_a_task_that_is_cancelled_keeps_what_is_through(chain: Chain) -> None:
    path = begin(chain.url, body(40, **PACE)).headers["location"]
    with Call(chain.url, f"{path}/events") as call:
        call.until(4)
        assert ask(chain.url, path).json["status"] == "running"
        assert delete(chain.url, path) == 204
        call.finish()
    assert (call.frames[-1].event, call.frames[-1].json()["status"]) == ("error", "cancelled")
    ended = until_status(chain.url, path, "cancelled")
    assert 0 < ended["progress"] < 1
    assert len(ended["result"]["items"]) == ended["completed"] > 0
    assert delete(chain.url, path) == 204


def test_the_same_key_makes_one_task_and_a_prompt_that_fails_ends_none(chain: Chain) -> None:
    wanted = body(2, **FAST, fault={"kind": "error", "at_token": 2})
    made = [begin(chain.url, wanted, Idempotency_Key=f"tasks-{chain.port}") for _ in range(2)]
    assert made[0].json["task_id"] == made[1].json["task_id"]
    ended = until_status(chain.url, made[0].headers["location"], "completed")
    assert (ended["result"]["succeeded"], ended["result"]["failed"]) == (0, 2)
    assert {item["error"]["code"] for item in ended["result"]["items"]} == {"upstream_error"}


def test_what_is_no_task_is_refused_by_its_name(chain: Chain) -> None:
    wrongs: list[dict[str, Any]] = [
        {"prompts": []},
        {"prompts": ["x"] * 101},
        {"prompts": ["x" * 90_000] * 6},
        {"kind": "dream"},
    ]
    for wrong in wrongs:
        assert ask(chain.url, PATH, {"prompts": ["x"], **wrong}).status == 422
    assert ask(chain.url, PATH, {"prompts": ["x"], "model": "none"}).json["error"]["code"] == "model_not_found"
    stream = ask(chain.url, "/api/v1/generate", {"prompt": "x", "simulator": FAST}).json["stream_id"]
    for path in (f"{PATH}/{stream}", f"{PATH}/{stream}/events", f"{PATH}/{'x' * 24}", f"{PATH}/x"):
        assert ask(chain.url, path).json["error"]["code"] == "not_found"
    assert delete(chain.url, f"{PATH}/{stream}") == 404


def test_a_task_whose_worker_is_killed_completes_and_asks_for_no_answer_twice(chain: Chain) -> None:
    until_replaced(chain, set())
    owner, other = sockets(chain)
    pid = pid_behind(owner)
    path = begin(owner, body(24, **PACE)).headers["location"]
    with Call(other, f"{path}/events") as call:
        call.until(6)
        os.kill(pid, signal.SIGKILL)
        call.finish(30)
    items = [frame.json()["item"] for frame in call.frames if "item" in frame.json()]
    assert sorted(item["index"] for item in items) == list(range(24))
    assert call.frames[-1].event == "done"
    ended = until_status(chain.url, path, "completed")
    assert [item["response"] for item in ended["result"]["items"]] == [
        item["response"] for item in sorted(items, key=lambda item: item["index"])
    ]
    assert "took a stream over" in chain.log
    until_replaced(chain, {pid})


def test_a_task_that_nobody_reads_goes_on_on_another_worker(chain: Chain) -> None:
    until_replaced(chain, set())
    owner = sockets(chain)[0]
    pid = pid_behind(owner)
    path = begin(owner, body(12, **PACE)).headers["location"]
    os.kill(pid, signal.SIGKILL)
    assert until_status(chain.url, path, "completed")["result"]["succeeded"] == 12
    until_replaced(chain, {pid})


def test_a_task_is_its_callers_own_and_counts_each_of_its_prompts(tmp_path: Path) -> None:
    config = tmp_path / "models.yaml"
    tiers = {"free": {"requests_per_minute": 5}, "pro": {}, "counted": {"tokens_per_minute": 40_000}}
    config.write_text(json.dumps({"models": {"simulator": [{"provider": "simulator"}]}, "tiers": tiers}))
    keys = ApiKeys(tmp_path, alice="free", bob="pro", carol="counted")
    with Gunicorn(keys.environment | {"SLUICE_CONFIG": str(config)}) as server:
        alice, bob = keys.headers("alice"), keys.headers("bob")
        assert ask(server.url, PATH, body(1)).status == 401
        path = begin(server.url, body(4, **FAST), **alice).headers["location"]
        for other in ({}, bob):
            for read in (path, f"{path}/events"):
                assert ask(server.url, read, **other).status == (404 if other else 401)
            assert delete(server.url, path, **other) == (404 if other else 401)
        assert ask(server.url, path, **alice).status == 200
        assert ask(server.url, PATH, body(2, **FAST), **alice).status == 429
        assert ask(server.url, PATH, body(1, **FAST), **alice).status == 202
        assert ask(server.url, PATH, body(6, **FAST), **alice).json["error"]["code"] == "limit_exceeded"
        assert begin(server.url, body(50, **FAST), **bob).json["total"] == 50
        # Tokens are those of the answers, however few: a line about an answer is none.
        few = body(3, **FAST) | {"max_tokens": 1}
        carol = keys.headers("carol")
        path = begin(server.url, few, **carol).headers["location"]
        assert until_status(server.url, path, "completed", headers=carol)["result"]["succeeded"] == 3
