"""Conversations over HTTP: history that outlives workers, one turn at a time, each caller's own."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.request import Request, urlopen

import msgspec
import pytest

from tests.support.api_keys import ApiKeys, key_of
from tests.support.call import Call, ask
from tests.support.gunicorn import Gunicorn
from tests.support.upstream import ScriptedUpstream
from tests.support.upstream_script import Script

PATH = "/api/v1/chat"
FAST = {"tokens": 3, "tokens_per_second": 0, "first_token_ms": 0}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, upstream: ScriptedUpstream) -> Iterator[Gunicorn]:
    folder = tmp_path_factory.mktemp("conversations")
    config = folder / "models.json"
    names = ("kept", "says", "slow", "fails", "keyed")
    targets = {name: [{"provider": "openai", "base_url": upstream.base_url, "model": name}] for name in names}
    config.write_text(msgspec.json.encode({"models": targets}).decode())
    keys = ApiKeys(folder, alice="pro", bob="pro")
    with Gunicorn({"SLUICE_CONFIG": str(config)} | keys.environment) as running:
        yield running


def say(server: Gunicorn, model: str, message: str, who: str = "alice", **more: Any) -> Call:
    body = {"model": model, "message": message, "conversation_id": f"about-{model}", **more}
    headers = {name: more.pop(name) for name in ("Idempotency_Key",) if name in more}
    body = {name: value for name, value in body.items() if name not in headers}
    return ask(server.url, PATH, body, **headers, Authorization=f"Bearer {key_of(who)}")


def forget(server: Gunicorn, path: str, headers: dict[str, str]) -> int:
    request = Request(server.url + path, headers=headers, method="DELETE")
    with urlopen(request, timeout=20) as answer:
        return int(answer.status)


def told(upstream: ScriptedUpstream, model: str) -> list[str]:
    """What the upstream was told last, without roles."""
    return [message["content"] for message in upstream.requests(model)[-1].body["messages"]]


def test_the_model_is_told_what_was_said_before_behind_the_systems_words(
    server: Gunicorn, upstream: ScriptedUpstream
) -> None:
    upstream.script("says", Script(tokens=["a ", "b"]), Script(tokens=["c"]), Script(tokens=["d"]))
    assert say(server, "says", "one").json["response"] == "a b"
    streamed = say(server, "says", "two", stream=True)
    assert (streamed.text, streamed.verdict) == ("c", "complete")
    assert say(server, "says", "three", system="Be brief.").json["conversation_id"] == "about-says"
    assert told(upstream, "says") == ["Be brief.", "one", "a b", "two", "c", "three"]
    roles = [message["role"] for message in upstream.requests("says")[-1].body["messages"]]
    assert roles == ["system", "user", "assistant", "user", "assistant", "user"]
    say(server, "says", "hello", who="bob")
    assert told(upstream, "says") == ["hello"]


def test_what_was_not_answered_was_never_said(server: Gunicorn, upstream: ScriptedUpstream) -> None:
    upstream.script("fails", Script(tokens=["a ", "b"], die_after=1, how="fin"), Script(tokens=["c"]))
    assert say(server, "fails", "one", stream=True).verdict == "error"
    say(server, "fails", "two")
    assert told(upstream, "fails") == ["two"]


def test_a_conversation_answers_one_message_at_a_time(server: Gunicorn, upstream: ScriptedUpstream) -> None:
    upstream.script("slow", Script(tokens=10, delay_seconds=0.1))
    with ThreadPoolExecutor(4) as pool:
        calls = list(pool.map(lambda number: say(server, "slow", f"m{number}"), range(4)))
    assert sorted(call.status for call in calls) == [200, 409, 409, 409]
    busy = next(call for call in calls if call.status == 409)
    assert busy.json["error"]["code"] == "busy"
    assert int(busy.headers["retry-after"]) >= 1
    assert say(server, "slow", "next").status == 200
    assert len(told(upstream, "slow")) == 3


def test_who_asks_again_with_his_key_joins_his_turn_while_it_runs_and_afterwards(
    server: Gunicorn, upstream: ScriptedUpstream
) -> None:
    upstream.script("keyed", Script(tokens=8, delay_seconds=0.1))
    with ThreadPoolExecutor(2) as pool:
        calls = list(pool.map(lambda _: say(server, "keyed", "one", Idempotency_Key="k1"), range(2)))
    calls.append(say(server, "keyed", "one", Idempotency_Key="k1"))
    assert {call.status for call in calls} == {200}
    assert len({call.json["stream_id"] for call in calls}) == 1
    assert say(server, "keyed", "other", Idempotency_Key="k1").status == 422
    say(server, "keyed", "two")
    assert told(upstream, "keyed")[::2] == ["one", "two"]


def test_a_conversation_is_looked_at_and_forgotten_by_its_owner_alone(
    server: Gunicorn, upstream: ScriptedUpstream
) -> None:
    upstream.script("kept", Script(tokens=["a ", "b"]))
    say(server, "kept", "one")
    alice, bob = ({"Authorization": f"Bearer {key_of(who)}"} for who in ("alice", "bob"))
    path = "/api/v1/conversations/about-kept"
    found = ask(server.url, path, **alice)
    assert [(each["role"], each["content"]) for each in found.json["messages"]] == [
        ("user", "one"),
        ("assistant", "a b"),
    ]
    assert forget(server, path, bob) == 204
    assert [ask(server.url, path, **who).status for who in (alice, bob, {})] == [200, 404, 401]
    assert forget(server, path, alice) == 204
    assert ask(server.url, path, **alice).status == 404
    say(server, "kept", "two")
    assert told(upstream, "kept") == ["two"]


def test_a_name_that_is_none_is_refused(server: Gunicorn) -> None:
    for name in ("", "a b", "x" * 65, "ä", "../x"):
        assert say(server, "says", "one", conversation_id=name).status == 422
