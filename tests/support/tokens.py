"""An identity provider's keys, and bearer tokens of every kind: those that are in order, and those that are not."""

import base64
import hmac
import json
from functools import cache
from hashlib import sha256
from time import time
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

ISSUER = "https://id.example.org/"
AUDIENCE = "sluice-tests"


@cache
def rsa_key(name: str) -> rsa.RSAPrivateKey:
    """One for each name. Without a default: the cache would know the same key twice."""
    del name
    return rsa.generate_private_key(65_537, 2048)


@cache
def ec_key(name: str) -> ec.EllipticCurvePrivateKey:
    del name
    return ec.generate_private_key(ec.SECP256R1())


def public_pem(name: str = "k1") -> bytes:
    return rsa_key(name).public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def jwk(name: str = "k1", **fields: Any) -> dict[str, Any]:
    """An RSA key as a key set has it."""
    found: dict[str, Any] = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(rsa_key(name).public_key()))
    return found | {"kid": name, "use": "sig"} | fields


def ec_jwk(name: str = "e1", **fields: Any) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(jwt.algorithms.ECAlgorithm.to_jwk(ec_key(name).public_key()))
    return found | {"kid": name, "use": "sig"} | fields


def jwks(*keys: dict[str, Any]) -> bytes:
    return json.dumps({"keys": list(keys or (jwk(),))}).encode()


def claims(**changed: Any) -> dict[str, Any]:
    """Of a token that is in order; None leaves a claim out."""
    now = int(time())
    whole = {"iss": ISSUER, "aud": AUDIENCE, "sub": "ana", "iat": now, "nbf": now, "exp": now + 300} | changed
    return {name: value for name, value in whole.items() if value is not None}


def signed(key: str = "k1", header: dict[str, Any] | None = None, **changed: Any) -> str:
    """Signed as it should be."""
    return jwt.encode(claims(**changed), rsa_key(key), "RS256", headers={"kid": key} | (header or {}))


def raw(header: dict[str, Any], payload: dict[str, Any] | bytes, signature: bytes = b"") -> str:
    """A token of any parts."""
    body = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    return ".".join((_b64(json.dumps(header).encode()), _b64(body), _b64(signature)))


def hmac_signed(secret: bytes, header: dict[str, Any] | None = None, **changed: Any) -> str:
    """HS256 with any bytes for the secret, also such as PyJWT would refuse."""
    head = {"alg": "HS256", "typ": "JWT", "kid": "k1"} | (header or {})
    unsigned = raw(head, claims(**changed)).rpartition(".")[0]
    return f"{unsigned}.{_b64(hmac.new(secret, unsigned.encode(), sha256).digest())}"


def tampered(token: str, **changed: Any) -> str:
    """The same signature under other claims."""
    header, payload, signature = token.split(".")
    was = json.loads(base64.urlsafe_b64decode(payload + "=="))
    return f"{header}.{_b64(json.dumps(was | changed).encode())}.{signature}"


def _b64(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()
