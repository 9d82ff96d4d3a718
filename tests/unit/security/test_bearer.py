"""Nobody comes in by a token that one of the trusted issuers did not sign, for us, for now."""

import asyncio
import json
from collections.abc import Callable
from time import time

import jwt
import msgspec
import pytest

from app.errors import IdentityUnavailable, Unauthorized
from app.security.bearer import Bearer, TrustedIssuer
from app.security.jwks import Keys, parse_jwks, parse_secrets, secret_id
from app.tiers import EXAMPLES
from tests.support.tokens import (
    AUDIENCE,
    ISSUER,
    claims,
    ec_jwk,
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

SECRET = b"a-secret-that-is-long-enough-for-hs256"


class Source:
    """Keys that a test changes."""

    def __init__(self, keys: Keys) -> None:
        self.keys = keys
        self.asked = 0
        self.news: Keys | None = None

    async def look_again(self) -> None:
        self.asked += 1
        self.keys = self.news or self.keys


def trusted(source: Source, issuer: str = ISSUER, tier_claim: str | None = "tier") -> TrustedIssuer:
    return TrustedIssuer(issuer, AUDIENCE, source, "corp:", tier_claim, "free", 30)


@pytest.fixture
def source() -> Source:
    return Source(parse_jwks(jwks(), ["RS256"]))


@pytest.fixture
def bearer(source: Source) -> Bearer:
    other = Source(parse_secrets(SECRET.decode(), "HS256"))
    return Bearer([trusted(source), trusted(other, "secret-issuer")], EXAMPLES)


async def test_a_token_in_order_names_its_principal_and_tier(bearer: Bearer) -> None:
    found = await bearer.principal(signed(tier="pro"))
    assert (found.account, found.tier_name, found.tier) == ("corp:ana", "pro", EXAMPLES["pro"])
    assert 290 < found.expires_at - time() <= 300


@pytest.mark.parametrize("tier", ["root", None, 7, ["pro"], {"a": 1}])
async def test_a_tier_that_there_is_not_is_the_issuers_own(bearer: Bearer, tier: object) -> None:
    assert (await bearer.principal(signed(tier=tier))).tier_name == "free"


async def test_a_secret_issuers_token_is_taken_with_its_own_secret(bearer: Bearer) -> None:
    token = hmac_signed(SECRET, {"kid": secret_id(SECRET)}, iss="secret-issuer")
    assert (await bearer.principal(token)).account == "corp:ana"


HEAD = {"alg": "RS256", "typ": "JWT", "kid": "k1"}
FORGED: dict[str, Callable[[], str]] = {
    "alg none": lambda: raw({"alg": "none", "kid": "k1"}, claims()),
    "alg None, no kid": lambda: raw({"alg": "None"}, claims()),
    "alg none with a signature": lambda: raw({"alg": "none", "kid": "k1"}, claims(), b"x" * 256),
    "alg missing": lambda: raw({"kid": "k1"}, claims(), b"x" * 256),
    "alg is a list": lambda: raw({"alg": ["RS256", "none"], "kid": "k1"}, claims(), b"x" * 256),
    "no signature": lambda: signed().rpartition(".")[0] + ".",
    "HS256 by the public key as PEM": lambda: hmac_signed(public_pem()),
    "HS256 by the public key as its key set": lambda: hmac_signed(jwks()),
    "HS256 by the modulus": lambda: hmac_signed(jwk()["n"].encode()),
    "HS256 by nothing": lambda: hmac_signed(b""),
    "HS256 of another issuer's secret": lambda: hmac_signed(SECRET),
    "RS256 for an issuer of secrets": lambda: signed(iss="secret-issuer", header={"kid": secret_id(SECRET)}),
    "RS512 where RS256 is pinned": lambda: jwt.encode(claims(), rsa_key("k1"), "RS512", headers={"kid": "k1"}),
    "PS256 where RS256 is pinned": lambda: jwt.encode(claims(), rsa_key("k1"), "PS256", headers={"kid": "k1"}),
    "ES256 of a key of its own": lambda: jwt.encode(claims(), ec_key("e1"), "ES256", headers={"kid": "k1"}),
    "a stranger's key": lambda: signed("stranger", {"kid": "k1"}),
    "a stranger's key, which it brings along": lambda: signed("stranger", {"kid": "k1", "jwk": jwk("stranger")}),
    "a stranger's key, at an address": lambda: signed("stranger", {"jku": "http://127.0.0.1:1/", "kid": "k1"}),
    "a stranger's certificate": lambda: signed("stranger", {"x5u": "http://127.0.0.1:1/", "x5c": ["AA=="]}),
    "kid of a file": lambda: hmac_signed(b"", {"kid": "../../../../dev/null"}),
    "kid of SQL": lambda: hmac_signed(b"x", {"kid": "k1' UNION SELECT 'x"}),
    "kid of a command": lambda: signed("stranger", {"kid": "k1|touch /tmp/x"}),
    "kid with a NUL": lambda: signed("stranger", {"kid": "k1\0"}),
    "kid unknown": lambda: signed(header={"kid": "k9"}),
    "kid a number": lambda: raw({"alg": "RS256", "kid": 1}, claims(), b"x"),
    "kid an object": lambda: raw({"alg": "RS256", "kid": {"a": 1}}, claims(), b"x"),
    "expired": lambda: signed(exp=int(time()) - 60),
    "expired long ago": lambda: signed(exp=1),
    "exp missing": lambda: signed(exp=None),
    "exp a text": lambda: raw(HEAD, claims(exp="tomorrow"), b"x"),
    "exp infinite": lambda: raw(HEAD, json.dumps(claims(exp=1)).replace('"exp": 1', '"exp": 1e999').encode(), b"x"),
    "not yet": lambda: signed(nbf=int(time()) + 600),
    "issued in the future": lambda: signed(iat=int(time()) + 600),
    "another audience": lambda: signed(aud="somebody-else"),
    "audience missing": lambda: signed(aud=None),
    "audience a number": lambda: signed(aud=[1, 2]),
    "another issuer": lambda: signed(iss="https://evil.example.org/"),
    "issuer missing": lambda: signed(iss=None),
    "issuer with a slash less": lambda: signed(iss=ISSUER.rstrip("/")),
    "subject missing": lambda: signed(sub=None),
    "subject empty": lambda: signed(sub=""),
    "subject with a line end": lambda: signed(sub="ana\nkey:root"),
    "subject too long": lambda: signed(sub="a" * 201),
    "claims changed": lambda: tampered(signed(), sub="root"),
    "tier changed": lambda: tampered(signed(tier="free"), tier="enterprise"),
    "of another type": lambda: signed(header={"typ": "logout+jwt"}),
    "critical extensions": lambda: signed(header={"crit": ["exp"]}),
    "claims no object": lambda: raw(HEAD, b"[]", b"x"),
    "claims no JSON": lambda: raw(HEAD, b"{", b"x"),
    "claims deep": lambda: raw(HEAD, b'{"iss":' + b"[" * 2000 + b"]" * 2000 + b"}", b"x"),
    "claims a big number": lambda: raw(HEAD, b'{"iss":' + b"9" * 4000 + b"}", b"x"),
    "too long": lambda: signed(sub="a", filler="x" * 9000),
    "encrypted": lambda: "eyJhbGciOiJkaXIifQ.a.b.c.d",
    "two parts": lambda: signed().rpartition(".")[0],
    "no base64": lambda: "ey!.ey!.!!",
    "empty parts": lambda: "..",
}


@pytest.mark.parametrize("attack", FORGED)
async def test_no_forged_or_unfit_token_gets_in(bearer: Bearer, attack: str) -> None:
    with pytest.raises(Unauthorized):
        await bearer.principal(FORGED[attack]())


async def test_a_token_is_refused_once_it_has_expired_although_it_is_remembered(
    source: Source,
) -> None:
    bearer = Bearer([msgspec.structs.replace(trusted(source), leeway_seconds=0)], EXAMPLES)
    token = signed(exp=int(time()) + 2)
    await bearer.principal(token)
    await asyncio.sleep(2.5)
    with pytest.raises(Unauthorized, match="expired"):
        await bearer.principal(token)


async def test_a_token_is_refused_once_its_key_is_withdrawn(bearer: Bearer, source: Source) -> None:
    token = signed()
    await bearer.principal(token)
    source.keys = parse_jwks(jwks(jwk("k2")), ["RS256"])
    with pytest.raises(Unauthorized):
        await bearer.principal(token)
    source.keys = parse_jwks(jwks(jwk("k2", kid="k1")), ["RS256"])
    with pytest.raises(Unauthorized):
        await bearer.principal(token)


async def test_a_key_that_is_new_is_asked_for(bearer: Bearer, source: Source) -> None:
    source.news = parse_jwks(jwks(jwk(), jwk("k2")), ["RS256"])
    assert (await bearer.principal(signed("k2"))).account == "corp:ana"
    assert source.asked == 1
    await bearer.principal(signed())
    assert source.asked == 1


async def test_an_issuer_without_keys_is_not_the_callers_fault() -> None:
    with pytest.raises(IdentityUnavailable):
        await Bearer([trusted(Source({}))], EXAMPLES).principal(signed())


async def test_what_is_remembered_is_bounded(bearer: Bearer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.security.bearer.KNOWN_MAX", 3)
    for number in range(6):
        await bearer.principal(signed(sub=f"u{number}"))
    assert len(bearer._known) == 3


async def test_a_key_is_only_for_its_own_algorithm() -> None:
    keys = parse_jwks(jwks(jwk("k1", alg="RS256"), jwk("k2", alg="PS256"), ec_jwk()), ["RS256", "PS256", "ES256"])
    assert {name: key.algorithm for name, key in keys.items()} == {"k1": "RS256", "k2": "PS256", "e1": "ES256"}


@pytest.mark.parametrize(
    "unfit",
    [
        {"kty": "oct", "k": "c2VjcmV0LXRoYXQtZXZlcnlib2R5LWtub3dz", "kid": "s", "alg": "HS256"},
        jwk(use="enc"),
        jwk(key_ops=["sign"]),
        jwk(alg="HS256"),
        jwk(alg="RS1"),
        jwk(alg="none"),
        jwk(n="AQAB"),
        {"kty": "RSA"},
        {"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA", "kid": "e"},
    ],
)
def test_a_key_set_of_keys_that_may_verify_nothing_here_is_refused(unfit: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="no key of it"):
        parse_jwks(jwks(unfit), ["RS256", "ES256"])


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"keys":1}', b'{"keys":[]}', b"<html>"])
def test_what_is_no_key_set_is_refused(content: bytes) -> None:
    with pytest.raises(ValueError, match=r"(?i)key"):
        parse_jwks(content, ["RS256"])


def test_secrets_are_long_and_named_by_what_tells_nothing() -> None:
    keys = parse_secrets(f"{SECRET.decode()}\n{'b' * 32}\n", "HS256")
    assert next(iter(keys)) == secret_id(SECRET)
    assert [key.algorithm for key in keys.values()] == ["HS256", "HS256"]
    with pytest.raises(ValueError, match="32"):
        parse_secrets("short", "HS256")
