"""The token endpoint, tickets and status, asked over HTTP by those who may and those who may not."""

import base64
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from time import monotonic, sleep, time
from typing import Any
from urllib.parse import urlencode

import jwt
import pytest
import yaml
from argon2 import PasswordHasher

from tests.support.api_keys import ApiKeys, key_of
from tests.support.server import AppServer, HTTPAnswer
from tests.support.tokens import AUDIENCE, ISSUER, jwks, signed

FORM = {"Content-Type": "application/x-www-form-urlencoded"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("auth")


@pytest.fixture(scope="module")
def keys(folder: Path) -> ApiKeys:
    made = ApiKeys(folder, acme="pro", bob="free")
    made.add("sk-sluice-over-0000000000000000000000000000000", "acme", "pro", expires="2020-01-01T00:00:00Z")
    return made


@pytest.fixture(scope="module")
def server(folder: Path, keys: ApiKeys) -> Iterator[AppServer]:
    users = folder / "users.yaml"
    hashed = PasswordHasher().hash("correct horse battery")
    users.write_text(yaml.safe_dump({"users": [{"name": "ana", "password": hashed, "tier": "pro"}]}))
    (folder / "jwks.json").write_bytes(jwks())
    config = {
        "models": {"simulator": [{"provider": "simulator"}]},
        "issuers": [
            {
                "name": "corp",
                "issuer": ISSUER,
                "audience": AUDIENCE,
                "jwks_file": str(folder / "jwks.json"),
                "tier_claim": "tier",
            }
        ],
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    with AppServer(
        **keys.environment,
        SLUICE_USERS_FILE=str(users),
        SLUICE_CONFIG=str(folder / "config.yaml"),
        SLUICE_TRUSTED_PROXIES="127.0.0.1",
    ) as started:
        yield started


_addresses = iter(range(1, 250))


def ask_token(server: AppServer, headers: Mapping[str, str] | None = None, **form: str) -> HTTPAnswer:
    """From an address of its own, which a limit counts."""
    own = {"X-Real-IP": f"203.0.113.{next(_addresses)}"}
    return server.request("POST", "/api/v1/auth/token", urlencode(form).encode(), {**FORM, **own, **(headers or {})})


def status(server: AppServer, token: str) -> Any:
    return server.get("/api/v1/auth/status", {"Authorization": f"Bearer {token}"}).json


def basic(name: str, secret: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"{name}:{secret}".encode()).decode()}


def test_an_api_key_gets_a_token_of_the_same_principal_however_it_is_shown(server: AppServer) -> None:
    ways: list[tuple[dict[str, str], dict[str, str]]] = [
        ({}, {"client_id": "whatever", "client_secret": key_of("acme")}),
        (basic("whatever", key_of("acme")), {}),
        ({"X-API-Key": key_of("acme")}, {}),
        ({"Authorization": f"Bearer {key_of('acme')}"}, {}),
    ]
    for headers, form in ways:
        answer = ask_token(server, headers, grant_type="client_credentials", **form)
        assert answer.status == 200, answer.body
        assert answer.headers["cache-control"] == "no-store"
        assert answer.json.keys() == {"access_token", "token_type", "expires_in"}
        known = status(server, answer.json["access_token"])
        assert (known["principal"], known["tier"]) == ("key:acme", "pro")
        assert 0 < known["expires_at"] - time() <= 900


def test_a_password_gets_a_token_and_every_wrong_one_the_same_refusal(server: AppServer) -> None:
    right = ask_token(server, grant_type="password", username="ana", password="correct horse battery")
    assert status(server, right.json["access_token"])["principal"] == "user:ana"
    wrong = [
        ask_token(server, grant_type="password", username=name, password=password)
        for name, password in (("ana", "wrong"), ("nobody", "wrong"), ("nobody", "correct horse battery"))
    ]
    assert {(answer.status, answer.body) for answer in wrong} == {(400, wrong[0].body)}
    assert wrong[0].json["error"] == "invalid_grant"


@pytest.mark.parametrize(
    ("headers", "form", "error", "code"),
    [
        ({}, {}, "unsupported_grant_type", 400),
        ({}, {"grant_type": "authorization_code"}, "unsupported_grant_type", 400),
        ({}, {"grant_type": "client_credentials"}, "invalid_client", 401),
        ({}, {"grant_type": "client_credentials", "client_secret": "sk-sluice-guess"}, "invalid_client", 401),
        (
            {},
            {"grant_type": "client_credentials", "client_secret": "sk-sluice-over-0000000000000000000000000000000"},
            "invalid_client",
            401,
        ),
        ({"Authorization": "Basic !!!"}, {"grant_type": "client_credentials"}, "invalid_client", 401),
        ({}, {"grant_type": "password", "username": "ana"}, "invalid_request", 400),
        ({}, {"grant_type": "password", "password": "x"}, "invalid_request", 400),
    ],
)
def test_other_requests_for_a_token_are_refused_in_oauths_words(
    server: AppServer, headers: dict[str, str], form: dict[str, str], error: str, code: int
) -> None:
    answer = ask_token(server, headers, **form)
    assert (answer.status, answer.json["error"]) == (code, error)
    assert answer.headers["cache-control"] == "no-store"
    assert ("www-authenticate" in answer.headers) == (code == 401)


@pytest.mark.parametrize(
    ("content_type", "body", "code"),
    [
        ("application/json", b'{"grant_type":"client_credentials"}', 400),
        ("application/x-www-form-urlencoded", b"grant_type=client_credentials&grant_type=password", 400),
        ("application/x-www-form-urlencoded", b"a=" + b"x" * 20_000, 413),
        ("application/x-www-form-urlencoded", b"&".join(b"f%d=1" % number for number in range(50)), 400),
        ("application/x-www-form-urlencoded", b"\xff\xfe=\xff", 400),
    ],
)
def test_what_is_no_form_is_refused(server: AppServer, content_type: str, body: bytes, code: int) -> None:
    own = {"X-Real-IP": f"203.0.113.{next(_addresses)}"}
    answer = server.request("POST", "/api/v1/auth/token", body, {"Content-Type": content_type, **own})
    assert (answer.status, answer.json["error"] in {"invalid_request", "unsupported_grant_type"}) == (code, True)


def test_passwords_cannot_be_guessed_often_from_wherever(server: AppServer) -> None:
    outcomes = [
        ask_token(server, grant_type="password", username="victim", password=f"guess {number}").status
        for number in range(12)
    ]
    assert outcomes == [400] * 10 + [429] * 2


def test_one_address_cannot_ask_often_whatever_it_says_of_itself(server: AppServer) -> None:
    for number in range(62):
        answer = ask_token(
            server,
            {"X-Real-IP": "198.51.100.77", "X-Forwarded-For": f"10.0.0.{number}", "Forwarded": f"for=10.0.0.{number}"},
            grant_type="client_credentials",
            client_secret="guess",
        )
    assert answer.status == 429
    assert answer.json["error"]["code"] == "rate_limited"
    assert 1 <= int(answer.headers["retry-after"]) <= 120
    assert answer.headers["x-ratelimit-remaining"] == "0"
    other = ask_token(server, grant_type="client_credentials", client_secret=key_of("acme"))
    assert (other.status, other.headers["x-ratelimit-remaining"]) == (200, "59")


def test_keys_are_taken_and_withdrawn_while_the_server_runs(server: AppServer, keys: ApiKeys) -> None:
    soon = "sk-sluice-soon-0000000000000000000000000000000"
    keys.add(soon, "acme", "pro", expires="2035-01-01T00:00:00Z")
    deadline = monotonic() + 10
    while ask_token(server, grant_type="client_credentials", client_secret=soon).status != 200:
        assert monotonic() < deadline, "the file is read again when it changes"
        sleep(0.2)
    keys.remove(soon)
    while ask_token(server, grant_type="client_credentials", client_secret=soon).status != 401:
        assert monotonic() < deadline + 10
        sleep(0.2)


def test_an_issuers_token_is_taken_and_names_its_tier(server: AppServer) -> None:
    known = status(server, signed(tier="enterprise"))
    assert (known["principal"], known["tier"], known["limits"]["priority"]) == ("corp:ana", "enterprise", 9)


def test_nobody_is_let_in_by_a_token_of_ours_that_is_not(server: AppServer) -> None:
    ours = ask_token(server, grant_type="client_credentials", client_secret=key_of("bob")).json["access_token"]
    head, body, signature = ours.split(".")
    claims = json.loads(base64.urlsafe_b64decode(body + "=="))
    header = json.loads(base64.urlsafe_b64decode(head + "=="))
    assert header.keys() == {"alg", "kid", "typ"}
    assert header["typ"] == "at+jwt"
    forged = base64.urlsafe_b64encode(json.dumps(claims | {"sub": "key:acme"}).encode()).rstrip(b"=").decode()
    for token in (
        f"{head}.{forged}.{signature}",
        jwt.encode(claims, "k" * 32, "HS256", headers={"kid": header["kid"], "typ": "at+jwt"}),
        jwt.encode(claims, key_of("bob"), "HS256", headers={"kid": header["kid"], "typ": "at+jwt"}),
        signed(sub="key:acme", iss="sluice", aud="sluice", header={"kid": header["kid"]}),
    ):
        answer = server.get("/api/v1/auth/status", {"Authorization": f"Bearer {token}"})
        assert (answer.status, answer.json["error"]["code"]) == (401, "unauthorized")


def test_status_tells_a_stranger_nothing_but_that_he_is_one(server: AppServer) -> None:
    answer = server.get("/api/v1/auth/status")
    assert answer.status == 200
    assert answer.json == {
        "authenticated": False,
        "required": True,
        "principal": None,
        "tier": None,
        "expires_at": None,
        "limits": None,
    }


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer "},
        {"Authorization": "Basic YTpi"},
        {"Authorization": key_of("acme")},
        {"Authorization": f"Token {key_of('acme')}"},
        {"Authorization": f"Bearer {key_of('acme')}x"},
        {"Authorization": f"Bearer {key_of('acme')[:-1]}"},
        {"Authorization": f"Bearer {key_of('acme').upper()}"},
        {"X-API-Key": ""},
        {"X-API-Key": "' OR 1=1 --"},
        {"X-API-Key": "*"},
        {"X-API-Key": "x" * 9_000},
        {"X-API-Key": "\xff\xfe"},
    ],
)
def test_what_is_no_credential_lets_nobody_in(server: AppServer, headers: dict[str, str]) -> None:
    answer = server.post("/api/v1/tickets", {"scope": "create"}, headers)
    assert (answer.status, answer.json["error"]["code"]) == (401, "unauthorized")
    assert answer.headers["www-authenticate"].startswith("Bearer")


def test_two_credentials_at_once_are_none(server: AppServer) -> None:
    request = (
        "GET /api/v1/auth/status HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
        f"Authorization: Bearer {key_of('acme')}\r\nAuthorization: Bearer {key_of('bob')}\r\n\r\n"
    )
    assert server.raw(request.encode()).startswith(b"HTTP/1.1 401")


@pytest.mark.parametrize("scope", ["", "create:x", "stream:", "stream:../x", "conversation:a b", "all", "stream:*"])
def test_a_ticket_is_for_something_that_there_can_be(server: AppServer, keys: ApiKeys, scope: str) -> None:
    assert server.post("/api/v1/tickets", {"scope": scope}, keys.headers("acme")).status == 422


def test_a_ticket_for_a_stream_that_there_is_not_is_refused(server: AppServer, keys: ApiKeys) -> None:
    answer = server.post("/api/v1/tickets", {"scope": f"stream:{'x' * 24}"}, keys.headers("acme"))
    assert (answer.status, answer.json["error"]["code"]) == (404, "not_found")


def test_the_schema_names_what_opens_a_route_and_leaves_open_what_is(server: AppServer) -> None:
    schema = server.get("/openapi.json").json
    assert set(schema["components"]["securitySchemes"]) == {"Bearer", "APIKey"}
    asks = {path for path, item in schema["paths"].items() if any("security" in one for one in item.values())}
    assert {"/api/v1/generate", "/v1/chat/completions", "/v1/models", "/api/v1/streams/{stream_id}/status"} <= asks
    assert asks.isdisjoint({"/livez", "/readyz", "/health", "/"})


def test_a_ticket_is_no_credential(server: AppServer, keys: ApiKeys) -> None:
    ticket = server.post("/api/v1/tickets", {"scope": "create"}, keys.headers("acme")).json["ticket"]
    for path, headers in (
        ("/api/v1/tickets", {"Authorization": f"Bearer {ticket}"}),
        ("/api/v1/tickets", {"X-API-Key": ticket}),
        (f"/api/v1/tickets?ticket={ticket}", {}),
    ):
        assert server.post(path, {"scope": "create"}, headers).status == 401


def test_tickets_are_limited_by_the_tier(server: AppServer, keys: ApiKeys) -> None:
    outcomes = [server.post("/api/v1/tickets", {"scope": "create"}, keys.headers("bob")).status for _ in range(22)]
    assert outcomes == [200] * 20 + [429] * 2


def test_no_credential_is_ever_in_the_log(server: AppServer, keys: ApiKeys) -> None:
    token = ask_token(server, grant_type="client_credentials", client_secret=key_of("acme")).json["access_token"]
    ticket = server.post("/api/v1/tickets", {"scope": "create"}, keys.headers("acme")).json["ticket"]
    server.get(f"/api/v1/stream?prompt=hi&ticket={ticket}")
    server.get("/api/v1/auth/status", {"Authorization": f"Bearer {token}x"})
    server.get("/api/v1/auth/status", {"X-API-Key": key_of("acme") + "x"})
    ask_token(server, grant_type="password", username="ana", password="hunter2-hunter2")
    output = server.output()
    for secret in (token, token.rpartition(".")[2], ticket, key_of("acme"), "hunter2", "correct horse"):
        assert secret not in output
