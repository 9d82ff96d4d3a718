"""Who may be named as an issuer, and where its keys may be."""

from typing import Any

import pytest
from pydantic import ValidationError

from app.issuers import Issuer

COMMON = {"name": "corp", "issuer": "https://id.example.org/", "audience": "sluice"}


def issuer(**fields: Any) -> Issuer:
    return Issuer.model_validate(COMMON | fields)


@pytest.mark.parametrize(
    "url", ["https://id.example.org/keys", "http://127.0.0.1:9000/keys", "http://localhost/keys", "http://[::1]:9000/k"]
)
def test_keys_are_fetched_by_tls_or_from_this_machine(url: str) -> None:
    assert str(issuer(jwks_url=url).jwks_url) == url


@pytest.mark.parametrize(
    "url",
    [
        "http://id.example.org/keys",
        "http://127.0.0.1.example.org/keys",
        "http://localhost.example.org/keys",
        "http://127.0.0.2/keys",
        "http://10.0.0.1/keys",
        "http://localhost@id.example.org/keys",
    ],
)
def test_keys_that_somebody_on_the_way_could_change_are_refused(url: str) -> None:
    with pytest.raises(ValidationError, match="jwks_url must be https"):
        issuer(jwks_url=url)


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({}, "exactly one of"),
        ({"jwks_url": "https://id.example.org/keys", "jwks_file": "keys.json"}, "exactly one of"),
        ({"jwks_url": "https://id.example.org/keys", "algorithms": ["HS256"]}, "secret_file goes with"),
        ({"secret_file": "secret", "algorithms": ["RS256"]}, "secret_file goes with"),
        ({"secret_file": "secret", "algorithms": ["HS256", "RS256"]}, "secret_file goes with"),
        ({"secret_file": "secret", "algorithms": ["none"]}, "algorithms"),
        ({"jwks_file": "keys.json", "name": "key"}, "taken by Sluice"),
        ({"jwks_file": "keys.json", "issuer": "sluice"}, "taken by Sluice"),
    ],
)
def test_an_issuer_that_could_be_mistaken_is_refused(fields: dict[str, Any], why: str) -> None:
    with pytest.raises(ValidationError, match=why):
        issuer(**fields)
