"""Whoever copies an example from /docs gets the answer that /docs declares: each is sent to the whole chain."""

import json
import re
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode
from urllib.request import urlopen

import pytest
import yaml
from argon2 import PasswordHasher
from jsonschema import Draft202012Validator

from app.api.examples import API_KEY, CONVERSATION, PASSWORD, STREAM_ID, USER
from app.api.versions import SUCCESSORS
from app.tiers import EXAMPLES
from tests.support import server
from tests.support.api_keys import ApiKeys, key_of
from tests.support.call import SECONDS_MAX
from tests.support.chain import Chain
from tests.support.server import HTTPAnswer
from tests.support.sse import decode
from tests.support.workers import until

FORM = "application/x-www-form-urlencoded"
# As many as the largest example comes to.
SPENT_REQUESTS = 2
ELSEWHERE = '{"scope": "conversation:elsewhere"}'
# Operations that are not in the documentation, by those that they are other names of.
ALIASES = {
    ("post", "/api/generate"): "/api/v1/generate",
    ("post", "/api/chat"): "/api/v1/chat",
    ("get", "/api/stream"): "/api/v1/stream",
    ("post", "/api/chat/stream"): "/api/v1/chat",
    ("post", "/api/v1/stream/generate"): "/api/v1/generate",
    ("get", "/auth-status"): "/api/v1/auth/status",
    ("get", "/ready"): "/readyz",
}
# One principal for each operation: none meets the limits, or the keys for joining, of another.
PRINCIPALS = 80


@dataclass(frozen=True)
class Request:
    """One to send.

    Args:
        says: which example it is, for whoever reads of its failure.
    """

    method: str
    path: str
    says: str
    headers: dict[str, str] = field(default_factory=dict)
    query: dict[str, Any] = field(default_factory=dict)
    body: str = ""

    @property
    def target(self) -> str:
        return f"{self.path}?{urlencode(self.query)}" if self.query else self.path

    def about(self, stream_id: str) -> "Request":
        """The same with an id that is the caller's own."""

        def ours(values: dict[str, Any]) -> dict[str, Any]:
            return {name: str(value).replace(STREAM_ID, stream_id) for name, value in values.items()}

        return replace(
            self,
            path=self.path.replace(STREAM_ID, stream_id),
            headers=ours(self.headers),
            query=ours(self.query),
            body=self.body.replace(STREAM_ID, stream_id),
        )


class Client:
    """One caller; without a name, one who shows nothing."""

    def __init__(self, chain: Chain, principal: str) -> None:
        self._port = chain.port
        self._key = {"Authorization": f"Bearer {key_of(principal)}"} if principal else {}

    def send(self, request: Request) -> HTTPAnswer:
        body = request.body.encode() or None
        # The token endpoint asks for the form's credentials, and takes a header for them too.
        key = {} if request.headers.get("Content-Type") == FORM else self._key
        return server.request(self._port, request.method.upper(), request.target, body, key | request.headers)

    def begun(self, path: str) -> str:
        """The id of something of the caller's own, which has ended, of the kind that the path is about."""
        if "/tasks" in path:
            task = self._posted("/api/v1/tasks", {"prompts": ["a", "b"], "max_tokens": 8})
            asked = Request("get", f"/api/v1/tasks/{task}", "one's own")
            until(lambda: self.send(asked).json["status"] == "completed", SECONDS_MAX, "the task is done")
            return task
        if "/responses" in path:
            return self._posted("/v1/responses", {"model": "simulator", "input": "x", "max_output_tokens": 8})
        return self._posted("/api/v1/generate", {"prompt": "x", "max_tokens": 8})

    def talk(self, conversation_id: str) -> None:
        """Have a conversation of that name."""
        self._posted("/api/v1/chat", {"message": "x", "max_tokens": 8, "conversation_id": conversation_id})

    def _posted(self, path: str, body: dict[str, Any]) -> str:
        answer = self.send(
            Request("post", path, "one's own", {"Content-Type": "application/json"}, body=json.dumps(body))
        )
        assert answer.status in (200, 202), answer
        return answer.headers["x-stream-id"]


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chain]:
    folder = tmp_path_factory.mktemp("examples")
    keys = ApiKeys(folder, **{f"p{number}": "enterprise" for number in range(PRINCIPALS)}, spent="spent")
    keys.add(API_KEY, "acme")
    tiers = {name: tier.model_dump(exclude_defaults=True) for name, tier in EXAMPLES.items()}
    tiers["spent"] = {"requests_per_minute": SPENT_REQUESTS}
    config = folder / "models.yaml"
    config.write_text(yaml.safe_dump({"models": {"simulator": [{"provider": "simulator"}]}, "tiers": tiers}))
    env = {"SLUICE_USERS_FILE": str(users(folder)), "SLUICE_CONFIG": str(config)}
    with Chain(keys.environment | env) as running:
        yield running


def users(folder: Path) -> Path:
    path = folder / "users.yaml"
    entry = {"name": USER, "password": PasswordHasher().hash(PASSWORD), "tier": "pro"}
    path.write_text(yaml.safe_dump({"users": [entry]}))
    return path


@pytest.fixture(scope="module")
def api(chain: Chain) -> dict[str, Any]:
    with urlopen(f"{chain.url}/openapi.json", timeout=SECONDS_MAX) as answer:
        found: dict[str, Any] = json.load(answer)
    return found


def requests_of(method: str, path: str, operation: dict[str, Any]) -> list[Request]:
    """Every example: each body with what it cannot do without, and the first with everything else that may be said."""
    parameters = operation.get("parameters", [])
    assert all("example" in parameter for parameter in parameters), f"{method} {path}: a parameter without an example"
    needed = {each["name"]: each["example"] for each in parameters if each["in"] == "query" and each["required"]}
    query = {each["name"]: said(each["example"]) for each in parameters if each["in"] == "query"}
    for each in parameters:
        if each["in"] == "path":
            path = path.replace(f"{{{each['name']}}}", quote(each["example"], safe=""))
    plain = [
        replace(body, query=needed, says=f"{method} {path}: {body.says}") for body in bodies(method, path, operation)
    ]
    first = plain[0]
    more = [replace(first, query=query, says=f"{method} {path}: all of the query")] if query != needed else []
    for each in parameters:
        if each["in"] == "header":
            headers = first.headers | {each["name"]: each["example"]}
            more.append(replace(first, headers=headers, says=f"{method} {path}: {each['name']}"))
    return plain + more


def said(value: Any) -> Any:
    return json.dumps(value) if isinstance(value, bool) else value


def bodies(method: str, path: str, operation: dict[str, Any]) -> Iterator[Request]:
    if "requestBody" not in operation:
        yield Request(method, path, "as it is")
        return
    for media_type, content in operation["requestBody"]["content"].items():
        assert content.get("examples"), f"{method} {path}: no example"
        for name, example in content["examples"].items():
            value = example["value"]
            body = urlencode(value) if media_type == FORM else json.dumps(value)
            yield Request(method, path, name, {"Content-Type": media_type}, body=body)


def check(api: dict[str, Any], operation: dict[str, Any], request: Request, answer: HTTPAnswer) -> None:
    """The answer is one that the operation declares."""
    at = f"{request.says}: {answer.status} {answer.body[:400]!r}"
    declared = operation["responses"].get(str(answer.status))
    assert declared is not None, at
    media_type = answer.headers.get("content-type", "").partition(";")[0]
    if not declared.get("content"):
        assert answer.body == b"" or answer.status >= 400, at
        return
    assert media_type in declared["content"], at
    content = declared["content"][media_type]
    streams = media_type == "text/event-stream"
    schema = content["itemSchema" if streams else "schema"] | {"components": api["components"]}
    validator = Draft202012Validator(schema)
    found: list[Any] = events(answer.body) if streams else [json.loads(answer.body)]
    assert found, at
    assert [error.message for item in found for error in validator.iter_errors(item)] == [], at
    if streams:
        assert not re.search(rb"event: error|event: reconnect|response.failed", answer.body), at
        assert re.search(rb"event: done|\[DONE\]|event: message_stop|response\.(completed|incomplete)", answer.body), at


def events(body: bytes) -> list[dict[str, Any]]:
    frames = decode(body)
    for frame in frames:
        assert frame.data == "[DONE]" or isinstance(frame.json(), dict)
    return [{"id": frame.id, "event": frame.event, "data": frame.data} for frame in frames]


def tried(client: Client, api: dict[str, Any], operation: dict[str, Any], sent: list[Request]) -> int:
    """Send each; returns how many streams came."""
    streams = 0
    for request in sent:
        if CONVERSATION in request.path:
            client.talk(CONVERSATION)
        answer = client.send(request)
        check(api, operation, request, answer)
        ours = request.about(client.begun(request.path)) if STREAM_ID in repr(request) else request
        if ours != request:
            assert answer.status == 404, (request.says, answer, "as it stands it is nobody's")
            answer = client.send(ours)
            check(api, operation, ours, answer)
        assert answer.status < 300, (request.says, answer)
        streams += answer.headers.get("content-type", "").startswith("text/event-stream")
    return streams


def test_every_example_of_every_operation_is_answered_as_declared(chain: Chain, api: dict[str, Any]) -> None:
    operations = [(method, path, each) for path, item in api["paths"].items() for method, each in item.items()]
    aliased = [(method, path, api["paths"][to][method]) for (method, path), to in ALIASES.items()]
    numbers = count()

    def attempt(method: str, path: str, operation: dict[str, Any]) -> int:
        client = Client(chain, f"p{next(numbers)}")
        return tried(client, api, operation, requests_of(method, path, operation))

    everything = operations + aliased
    assert len(operations) >= 40
    assert len(everything) <= PRINCIPALS
    # Each waits for its own stream's pace, most of the time.
    with ThreadPoolExecutor(len(everything)) as pool:
        streams = sum(pool.map(lambda each: attempt(*each), everything))
    assert streams >= 20


def test_whoever_is_refused_is_refused_as_declared(chain: Chain, api: dict[str, Any]) -> None:
    """For want of a credential, for a ticket to something else, and for having had all that there is in a minute."""
    operations = [(method, path, each) for path, item in api["paths"].items() for method, each in item.items()]
    guarded = [each for each in operations if each[2].get("security") and {} not in each[2]["security"]]
    stranger, spent, known = Client(chain, ""), Client(chain, "spent"), Client(chain, "p0")
    for _ in range(SPENT_REQUESTS):
        spent.begun("/generate")
    ticket = known.send(
        Request("post", "/api/v1/tickets", "a ticket", {"Content-Type": "application/json"}, body=ELSEWHERE)
    ).json["ticket"]
    found: Counter[int] = Counter()
    for method, path, operation in guarded:
        request = requests_of(method, path, operation)[0]
        attempts = [(stranger, request), (stranger, replace(request, query=request.query | {"ticket": ticket}))]
        if "Idempotency-Key" in [each["name"] for each in operation.get("parameters", [])]:
            attempts.append((spent, request))
        statuses = []
        for client, attempt in attempts:
            answer = client.send(attempt)
            check(api, operation, attempt, answer)
            statuses.append(answer.status)
        opened_by_tickets = "403" in operation["responses"]
        assert statuses[:2] == [401, 403 if opened_by_tickets else 401], request.says
        assert statuses[2:] in ([], [429]), request.says
        found.update(statuses)
    # Those that stream, in both versions; those that generate, on all surfaces.
    assert (found[403], found[429]) == (6, 11)
    assert found[401] >= 60


def test_the_names_of_older_clients_are_all_among_the_examples(api: dict[str, Any]) -> None:
    assert {path for _, path in ALIASES} == {path for path in SUCCESSORS if path not in api["paths"]}
