"""Attacks on who may come in and what he may reach, each through NGINX and Gunicorn: nothing gets in."""

import json
import os
import signal
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from time import time
from typing import Any
from urllib.parse import urlencode

import jwt
import pytest
import yaml

from tests.support import server
from tests.support.api_keys import ApiKeys, key_of
from tests.support.call import Call
from tests.support.chain import Chain
from tests.support.server import HTTPAnswer
from tests.support.tokens import (
    AUDIENCE,
    ISSUER,
    claims,
    ec_key,
    hmac_signed,
    jwk,
    jwks,
    public_pem,
    raw,
    rsa_key,
    signed,
    tampered,
)
from tests.support.workers import all_active_streams, producing_worker, until, until_replaced

NATIVE, OPENAI, ANTHROPIC = "/api/v1/generate", "/v1/chat/completions", "/v1/messages"
STREAM = "/api/v1/stream"
QUICK = {"tokens": 3, "tokens_per_second": 0}
HELLO = [{"role": "user", "content": "Hello"}]
BODIES: dict[str, dict[str, Any]] = {
    NATIVE: {"prompt": "Hello", "simulator": QUICK},
    OPENAI: {"model": "simulator", "messages": HELLO, "simulator": QUICK},
    ANTHROPIC: {"model": "simulator", "messages": HELLO, "simulator": QUICK, "max_tokens": 100},
}
SECRET = "s" * 40


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("attacks")


@pytest.fixture(scope="module")
def keys(folder: Path) -> ApiKeys:
    return ApiKeys(folder, alice="enterprise", bob="enterprise")


@pytest.fixture(scope="module")
def chain(folder: Path, keys: ApiKeys) -> Iterator[Chain]:
    (folder / "jwks.json").write_bytes(jwks())
    (folder / "secret").write_text(SECRET)
    corp = {"name": "corp", "issuer": ISSUER, "jwks_file": str(folder / "jwks.json")}
    lab = {"name": "lab", "issuer": "https://lab.example.org/", "secret_file": str(folder / "secret")}
    common = {"audience": AUDIENCE, "leeway_seconds": 0, "tier": "enterprise"}
    issuers = [common | corp, common | lab | {"algorithms": ["HS256"]}]
    config = {"models": {"simulator": [{"provider": "simulator"}]}, "issuers": issuers}
    (folder / "models.yaml").write_text(yaml.safe_dump(config))
    with Chain(keys.environment | {"SLUICE_CONFIG": str(folder / "models.yaml")}, workers=2) as running:
        yield running


def request(
    chain: Chain,
    method: str,
    path: str,
    headers: Mapping[str, str],
    body: Any = None,
    form: str = "",
    address: str = "127.0.0.1",
) -> HTTPAnswer:
    data, kind = (form.encode(), "application/x-www-form-urlencoded") if form else (None, "application/json")
    if body is not None:
        data = json.dumps(body).encode()
    return server.request(chain.port, method, path, data, {"Content-Type": kind, **headers}, address=address)


def error_code(path: str, answer: HTTPAnswer) -> str:
    """The code of an error, which must be in the surface's own shape."""
    error = answer.json["error"]
    if path.startswith("/v1/messages"):
        assert answer.json["type"] == "error"
        return str(error["details"]["error_code"])
    assert ("param" in error) == path.startswith("/v1/")
    return str(error["code"])


def forged() -> dict[str, str]:
    """Tokens that somebody made who has no key, or that were made for another time or place."""
    mallory, now = rsa_key("mallory"), int(time())
    own_jwk = jwk("mallory", kid="k1")

    def by_mallory(**header: Any) -> str:
        return jwt.encode(claims(), mallory, "RS256", headers={"kid": "k1"} | header)

    good = signed()
    return {
        "no algorithm": raw({"alg": "none", "typ": "JWT", "kid": "k1"}, claims()),
        "no algorithm in other letters": raw({"alg": "nOnE", "typ": "JWT", "kid": "k1"}, claims()),
        "no algorithm and a signature": raw({"alg": "none", "kid": "k1"}, claims(), b"x" * 256),
        "no signature": good.rpartition(".")[0] + ".",
        "the public key as a secret, as PEM": hmac_signed(public_pem()),
        "the public key as a secret, without its last line end": hmac_signed(public_pem().rstrip()),
        "the public key as a secret, as JWK": hmac_signed(json.dumps(jwk()).encode()),
        "an empty secret": hmac_signed(b""),
        "another issuer's secret": hmac_signed(SECRET.encode()),
        "another issuer's name": hmac_signed(b"guess" * 8, iss="https://lab.example.org/", header={"kid": ""}),
        "another family of the same key": jwt.encode(claims(), rsa_key("k1"), "PS256", headers={"kid": "k1"}),
        "a key of another kind": jwt.encode(claims(), ec_key("mallory"), "ES256", headers={"kid": "k1"}),
        "another key": by_mallory(),
        "another key that comes along": by_mallory(jwk=own_jwk),
        "another key at an address": by_mallory(jku="http://127.0.0.1:9/jwks", x5u="http://127.0.0.1:9/x5u"),
        "a key id that is a path": by_mallory(kid="../../../../dev/null"),
        "a key id that is a query": by_mallory(kid="k1' UNION SELECT 'x"),
        "a key id that nobody has": by_mallory(kid="k2"),
        "claims that were changed": tampered(good, sub="root"),
        "expired": signed(exp=now - 1),
        "not valid yet": signed(nbf=now + 300),
        "without an end": signed(exp=None),
        "for somebody else": signed(aud="another"),
        "for nobody": signed(aud=None),
        "of an issuer that is not trusted": signed(iss="https://evil.example.org/"),
        "of our own": jwt.encode(claims(iss="sluice", aud="sluice", sub="key:alice"), "k" * 32, "HS256"),
        "of our own, by an issuer's key": signed(iss="sluice", aud="sluice", sub="key:alice"),
        "for something else than access": signed(header={"typ": "logout+jwt"}),
        "with what must be understood": raw({"alg": "RS256", "kid": "k1", "crit": ["exp"]}, claims(), b"x" * 256),
        "with a subject of another namespace": signed(sub=["key:alice"]),
        "two parts": good.rpartition(".")[0],
        "five parts": f"{good}.x.y",
        "no JSON": raw({"alg": "RS256", "kid": "k1"}, b"\xff{", b"x"),
        "a hundred thousand brackets": raw({"alg": "RS256"}, b"[" * 5_000, b"x"),
    }


def test_no_token_that_is_not_in_order_opens_any_surface(chain: Chain) -> None:
    for path, body in BODIES.items():
        right = request(chain, "POST", path, {"Authorization": f"Bearer {signed()}"}, body)
        assert right.status == 200, right.body
    for name, token in forged().items():
        for path, body in BODIES.items():
            answer = request(chain, "POST", path, {"Authorization": f"Bearer {token}"}, body)
            assert (answer.status, error_code(path, answer)) == (401, "unauthorized"), name
            assert 'error="invalid_token"' in answer.headers["www-authenticate"], name


@pytest.mark.parametrize(
    ("method", "path"),
    [
        *(("POST", path) for path in BODIES),
        ("POST", "/api/v1/chat"),
        ("GET", "/api/v1/stream?prompt=Hello"),
        ("GET", f"/api/v1/streams/{'x' * 24}"),
        ("GET", f"/api/v1/streams/{'x' * 24}/status"),
        ("DELETE", f"/api/v1/streams/{'x' * 24}"),
        ("GET", "/v1/models"),
        ("GET", "/v1/models/simulator"),
        ("POST", "/api/v1/tickets"),
    ],
)
def test_no_route_opens_without_a_credential_or_by_one_in_the_wrong_place(chain: Chain, method: str, path: str) -> None:
    """Before the body is read: what is wrong with that is nobody's business."""
    key = key_of("alice")
    ways: list[tuple[str, dict[str, str]]] = [
        ("", {}),
        (f"api_key={key}", {}),
        (f"access_token={signed()}&authorization=Bearer%20{key}", {}),
        (f"ticket={'A' * 43}", {}),
        (f"ticket={key}", {}),
        ("", {"Cookie": f"Authorization={key}; api_key={key}"}),
        ("", {"Authorization": f"Basic {key}"}),
        ("", {"Proxy-Authorization": f"Bearer {key}"}),
        ("", {"X_API_Key": key}),
        ("", {"X-Forwarded-User": "key:alice", "X-Real-IP": "127.0.0.1"}),
        ("", {"Authorization": f"Bearer {key} {key}"}),
    ]
    for query, headers in ways:
        target = path + ("&" if "?" in path else "?") + query if query else path
        answer = request(chain, method, target, headers, {"nonsense": 1} if method == "POST" else None)
        assert (answer.status, error_code(path, answer)) == (401, "unauthorized"), (target, headers)


@pytest.mark.parametrize(
    "smuggled",
    [
        "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "Content-Length: 4\r\nContent-Length: 5\r\n\r\nabcde",
        "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
        "Authorization : Bearer {key}\r\nContent-Length: 0\r\n\r\n",
        "X: y\nAuthorization: Bearer\r\n {key}\r\nContent-Length: 0\r\n\r\n",
        "Authorization: Bearer {key}\r\nAuthorization: Bearer {other}\r\nContent-Length: 0\r\n\r\n",
        "Authorization: Bearer {key}, Bearer {other}\r\nContent-Length: 0\r\n\r\n",
        "X-API-Key: {key}\r\nX-API-Key: {other}\r\nContent-Length: 0\r\n\r\n",
    ],
)
def test_requests_that_two_servers_may_read_in_two_ways_are_refused(chain: Chain, smuggled: str) -> None:
    text = f"POST {NATIVE} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
    text += smuggled.replace("{key}", key_of("alice")).replace("{other}", key_of("bob"))
    with socket.create_connection(("127.0.0.1", chain.port), 20) as connection:
        connection.sendall(text.encode())
        answer = connection.recv(65_536)
    assert int(answer.split(b" ")[1]) in {400, 401, 501}, answer


class Page:
    """A browser's page that got a ticket."""

    def __init__(self, chain: Chain, headers: Mapping[str, str], scope: str = "create") -> None:
        answer = request(chain, "POST", "/api/v1/tickets", headers, {"scope": scope})
        assert answer.status == 200, answer.body
        assert answer.headers["cache-control"] == "no-store"
        self.ticket = answer.json["ticket"]
        self._chain = chain

    def address(self, path: str, **query: Any) -> str:
        return f"{path}?{urlencode(query | {'ticket': self.ticket})}"

    def open(self, path: str = STREAM, headers: Mapping[str, str] | None = None, **query: Any) -> Call:
        return Call(self._chain.url, self.address(path, **query), headers=headers or {})


def parts(call: Call) -> list[tuple[str, str, str]]:
    """Of each event all but when to come back, which every connection is told anew."""
    return [(frame.id, frame.event, frame.data) for frame in call.frames]


def test_a_ticket_opens_one_stream_and_that_one_again(chain: Chain, keys: ApiKeys) -> None:
    page, simulator = Page(chain, keys.headers("alice")), json.dumps({"tokens": 12, "tokens_per_second": 20})
    with page.open(prompt="Hello", simulator=simulator) as first:
        first.until(4)
        stream_id, last = first.headers["x-stream-id"], first.frames[3].id
    # As `EventSource` comes back: the same address, with the last id that it saw.
    again = page.open(prompt="Hello", simulator=simulator, headers={"Last-Event-ID": last}).finish()
    assert again.verdict == "complete"
    assert again.frames[0].id.endswith(".5")
    whole = page.open(f"/api/v1/streams/{stream_id}").finish()
    assert (whole.verdict, len(whole.frames)) == ("complete", 13)
    # Before it saw any: the stream from its beginning, and no second one.
    repeated = page.open(prompt="Hello", simulator=simulator).finish()
    assert parts(repeated) == parts(whole)


def test_a_ticket_that_was_used_opens_nothing_else(chain: Chain, keys: ApiKeys) -> None:
    alice = keys.headers("alice")
    other = Call(chain.url, NATIVE, BODIES[NATIVE] | {"stream": True}, headers=alice).finish()
    other_id, other_last = other.headers["x-stream-id"], other.frames[0].id
    page = Page(chain, alice)
    mine = page.open(prompt="Hello", simulator=json.dumps(QUICK)).finish()
    mine_id = mine.headers["x-stream-id"]
    assert page.open(prompt="Something else").finish().status == 422
    found = [
        page.open(f"/api/v1/streams/{other_id}").finish().status,
        page.open(f"/api/v1/streams/{other_id}", headers={"Last-Event-ID": other_last}).finish().status,
        page.open(prompt="Hello", last_event_id=other_last).finish().status,
    ]
    assert found == [404] * 3
    for method, path in (
        ("POST", NATIVE),
        ("POST", OPENAI),
        ("POST", "/api/v1/tickets"),
        ("GET", f"/api/v1/streams/{mine_id}/status"),
        ("DELETE", f"/api/v1/streams/{mine_id}"),
        ("GET", "/v1/models"),
    ):
        assert request(chain, method, page.address(path), {}).status == 401, path
    # A ticket beside a credential of somebody else's is nothing.
    assert page.open(f"/api/v1/streams/{mine_id}", headers=keys.headers("bob")).finish().status == 404


def test_a_ticket_for_a_stream_opens_that_stream_alone(chain: Chain, keys: ApiKeys) -> None:
    alice = keys.headers("alice")
    ids = []
    for _ in range(2):
        made = Call(chain.url, NATIVE, BODIES[NATIVE] | {"stream": True}, headers=alice).finish()
        ids.append(made.headers["x-stream-id"])
    page = Page(chain, alice, f"stream:{ids[0]}")
    for _ in range(2):
        assert page.open(f"/api/v1/streams/{ids[0]}").finish().verdict == "complete"
    assert page.open(f"/api/v1/streams/{ids[1]}").finish().status == 404
    assert page.open(prompt="Hello", simulator=json.dumps(QUICK)).finish().status == 403
    # What is not one's own is not there to get a ticket for.
    answer = request(chain, "POST", "/api/v1/tickets", keys.headers("bob"), {"scope": f"stream:{ids[0]}"})
    assert answer.status == 404


def test_a_token_that_expires_ends_the_connection_and_not_the_stream(chain: Chain) -> None:
    def bearer(seconds: int) -> dict[str, str]:
        return {"Authorization": f"Bearer {signed(exp=int(time()) + seconds)}"}

    slow = {"simulator": {"tokens": 60, "tokens_per_second": 15}, "stream": True}
    with (
        Call(chain.url, NATIVE, BODIES[NATIVE] | slow, headers=bearer(3)) as native,
        Call(chain.url, OPENAI, BODIES[OPENAI] | slow, headers=bearer(3)) as openai,
        Call(chain.url, ANTHROPIC, BODIES[ANTHROPIC] | slow, headers=bearer(3)) as anthropic,
    ):
        native.finish()
        openai.finish()
        anthropic.finish()
    farewell = native.frames[-1]
    assert (farewell.event, farewell.json()["reason"], native.end) == ("reconnect", "reauthenticate", "whole")
    assert native.terminals == []
    assert openai.frames[-1].json()["error"]["code"] == "token_expired"
    assert anthropic.frames[-1].json()["error"]["details"]["error_code"] == "token_expired"
    back = Call(
        chain.url,
        f"/api/v1/streams/{native.headers['x-stream-id']}",
        headers=bearer(60) | {"Last-Event-ID": native.frames[-2].id},
    ).finish()
    tokens = [frame for frame in [*native.frames, *back.frames] if frame.event == "token"]
    assert [frame.json()["index"] for frame in tokens] == list(range(1, 61))
    assert back.verdict == "complete"


def test_nothing_that_is_written_holds_a_credential(chain: Chain, keys: ApiKeys) -> None:
    """Not even where NGINX says why a request failed: with its whole address, if it may."""
    alice = keys.headers("alice")
    form = urlencode({"grant_type": "client_credentials", "client_secret": key_of("bob")})
    own = request(chain, "POST", "/api/v1/auth/token", {"X-API-Key": key_of("alice")}, form=form)
    token = own.json["access_token"]
    pages = [Page(chain, alice) for _ in range(2)]
    simulator = json.dumps({"tokens": 100, "tokens_per_second": 20})
    until(lambda: sum(all_active_streams(chain)) == 0, 10, "earlier streams are over")
    with pages[0].open(prompt="Hello", simulator=simulator) as call:
        call.until(2)
        dying = producing_worker(chain)
        os.kill(dying, signal.SIGKILL)
        assert call.finish().end == "cut"
    until_replaced(chain, {dying})
    request(chain, "GET", pages[1].address("/api/v1/nothing"), {})
    request(chain, "GET", pages[1].address(STREAM) + "&prompt=" + "x" * 20_000, {})
    request(chain, "POST", NATIVE, {"Authorization": f"Bearer {key_of('alice')}x"}, {"prompt": ["x"]})
    secrets = [key_of("alice"), key_of("bob"), token, signed(), *(page.ticket for page in pages)]
    written = {path: path.read_bytes() for path in chain.state_dir.rglob("*") if path.is_file()}
    written[Path("output")] = chain.log.encode()
    assert any(path.name == "error.log" for path in written)
    for path, content in written.items():
        for secret in secrets:
            assert secret.encode() not in content, path


def test_what_a_client_says_of_its_address_counts_for_nothing(chain: Chain) -> None:
    """Sixty a minute for each address: by another one for each request, nobody gets more."""
    form = urlencode({"grant_type": "client_credentials", "client_secret": "guess"})
    outcomes = []
    for number in range(64):
        address = f"198.51.100.{number}"
        lies = {
            "X-Real-IP": address,
            "X-Forwarded-For": f"{address}, 127.0.0.1",
            "Forwarded": f"for={address}",
            "X-Client-IP": address,
            "CF-Connecting-IP": address,
            "True-Client-IP": address,
            "X_Real_IP": address,
        }
        outcomes.append(request(chain, "POST", "/api/v1/auth/token", lies, form=form).status)
    assert outcomes == sorted(outcomes)
    assert outcomes.count(401) in {59, 60}  # the test before has asked once
    # Nor does somebody else pay for it, though all come to the worker by one Unix socket.
    other = request(chain, "POST", "/api/v1/auth/token", {}, form=form, address="127.0.0.2")
    assert (other.status, other.headers["x-ratelimit-remaining"]) == (401, "59")
