"""API keys: kept as hashes in a file, several at a time for one principal, so that they can be changed over.

    keys:
      - {hash: "sha256:9f86d081…", principal: acme, tier: pro}
      - {hash: "sha256:60303ae2…", principal: acme, tier: pro, not_before: 2026-12-01T00:00:00Z, expires: 2027-12-01}

A key is 256 random bits (`python -m deploy.credentials key`), so nobody guesses one, and a plain SHA-256 is enough to
keep it by; a slow hash would be paid for at each request.
"""

from collections.abc import Mapping
from datetime import UTC, date, datetime, time
from hashlib import sha256
from hmac import compare_digest
from time import time as now
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from app.security.principal import Principal
from app.tiers import LEAST_TIER, Tier

NAME = r"^[A-Za-z0-9][A-Za-z0-9._@-]{0,63}$"
# Longer than any key; what is longer is not worth hashing.
KEY_CHARACTERS_MAX = 512


def _moment(value: Any) -> Any:
    """A day, as YAML reads one, is its first moment."""
    if isinstance(value, date) and not isinstance(value, datetime):
        return datetime.combine(value, time(), UTC)
    if isinstance(value, datetime) and value.tzinfo is None:
        return value.replace(tzinfo=UTC)
    return value


Moment = Annotated[datetime, BeforeValidator(_moment)]


class KeyEntry(BaseModel):
    """One key of the file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    hash: str = Field(pattern=r"^(sha256:)?[0-9a-f]{64}$")
    principal: str = Field(pattern=NAME)
    tier: str = LEAST_TIER
    not_before: Moment | None = None
    expires: Moment | None = None


class KeyFile(BaseModel):
    """The file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    keys: list[KeyEntry]


class ApiKey:
    """A key that may be shown."""

    def __init__(self, entry: KeyEntry, tier: Tier) -> None:
        self.digest = bytes.fromhex(entry.hash.removeprefix("sha256:"))
        self.not_before = entry.not_before.timestamp() if entry.not_before else 0.0
        self.expires_at = entry.expires.timestamp() if entry.expires else 0.0
        self.principal = Principal.of(f"key:{entry.principal}", entry.tier, tier, self.expires_at).by_key(self.digest)

    def valid(self, at: float) -> bool:
        return self.not_before <= at and not 0 < self.expires_at <= at


Keys = Mapping[bytes, ApiKey]


def parse_keys(text: str, tiers: Mapping[str, Tier]) -> Keys:
    """The keys of a file, by their hash.

    Raises:
        ValueError: it is not such a file, or names a tier that there is not.
    """
    try:
        file = KeyFile.model_validate(yaml.safe_load(text))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        raise ValueError(f"not YAML{f', line {mark.line + 1}' if mark else ''}") from None
    except ValidationError as error:
        raise ValueError(first_error(error)) from None
    for entry in file.keys:
        if entry.tier not in tiers:
            raise ValueError(f"there is no tier {entry.tier!r}")
    keys = {key.digest: key for key in (ApiKey(entry, tiers[entry.tier]) for entry in file.keys)}
    if len(keys) < len(file.keys):
        raise ValueError("a key is there twice")
    return keys


def first_error(error: ValidationError) -> str:
    """What is wrong and where, without the value, which may be a secret that was put in the wrong place."""
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"]) or "(top level)"
    return f"{place}: {first['msg']}"


def digest_of(key: str) -> bytes | None:
    """The hash by which a key is known; None for what can be none."""
    return sha256(key.encode()).digest() if len(key) <= KEY_CHARACTERS_MAX else None


def find_key(keys: Keys, digest: bytes) -> Principal | None:
    """Whose key it is.

    Looked up by the hash of what was shown: how long that takes tells nothing of a key that somebody might extend.
    """
    key = keys.get(digest)
    if key is None or not compare_digest(key.digest, digest) or not key.valid(now()):
        return None
    return key.principal
