"""API keys: what the file may say, who comes in by which, and how a key is changed for another."""

import asyncio
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from time import monotonic
from typing import Any

import pytest

from app.security.api_keys import digest_of, find_key, parse_keys
from app.security.principal import Principal
from app.security.watched import CredentialsError, Watched
from app.tiers import EXAMPLES

OLD, NEW = "sk-sluice-old-0000000000000000000000000000", "sk-sluice-new-1111111111111111111111111111"


def entry(key: str, principal: str = "acme", **fields: str) -> str:
    rest = "".join(f", {name}: {value}" for name, value in fields.items())
    return f'  - {{hash: "sha256:{sha256(key.encode()).hexdigest()}", principal: {principal}{rest}}}\n'


def found(text: str, key: str) -> Principal | None:
    digest = digest_of(key)
    assert digest is not None
    return find_key(parse_keys(text, EXAMPLES), digest)


def at(**delta: float) -> str:
    return (datetime.now(UTC) + timedelta(**delta)).isoformat()


def test_a_key_names_its_principal_and_tier() -> None:
    principal = found("keys:\n" + entry(OLD, tier="pro"), OLD)
    assert principal is not None
    assert (principal.account, principal.tier_name, principal.rates) == ("key:acme", "pro", "300/minute;10000/hour")


def test_another_key_names_nobody() -> None:
    assert found("keys:\n" + entry(OLD), NEW) is None
    assert found("keys:\n" + entry(OLD), OLD + "x") is None
    assert found("keys: []", OLD) is None


def test_the_hash_is_no_key() -> None:
    assert found("keys:\n" + entry(OLD), sha256(OLD.encode()).hexdigest()) is None


def test_what_is_far_too_long_is_not_even_hashed() -> None:
    assert digest_of("x" * 100_000) is None


def test_two_keys_of_one_principal_overlap() -> None:
    text = "keys:\n" + entry(OLD, expires=at(hours=1)) + entry(NEW, not_before=at(hours=-1))
    old, new = found(text, OLD), found(text, NEW)
    assert old is not None
    assert new is not None
    assert old.account == new.account


@pytest.mark.parametrize(
    ("fields", "valid"),
    [
        # An hour: these are worked out when tests are collected, and this one may run much later.
        ({"expires": at(hours=1)}, True),
        ({"expires": at(seconds=-1)}, False),
        ({"not_before": at(seconds=-1)}, True),
        ({"not_before": at(hours=1)}, False),
        ({"expires": "2020-01-01"}, False),
        ({"not_before": "2020-01-01"}, True),
    ],
)
def test_a_key_counts_from_its_first_moment_to_its_last(fields: dict[str, str], valid: bool) -> None:
    assert (found("keys:\n" + entry(OLD, **fields), OLD) is not None) == valid


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "top level"),
        ("keys: [", "not YAML"),
        ("keys: [sk-sluice-in-clear]", "keys.0"),
        ('keys: [{hash: "sk-sluice-in-clear", principal: a}]', "keys.0.hash"),
        ("keys:\n" + entry(OLD, principal="'a b'"), "keys.0.principal"),
        ("keys:\n" + entry(OLD, tier="gold"), "no tier 'gold'"),
        ("keys:\n" + entry(OLD) + entry(OLD), "twice"),
        ("keys:\n" + entry(OLD, colour="red"), "keys.0.colour"),
    ],
)
def test_a_file_that_is_wrong_is_refused_and_no_key_is_shown(tmp_path: Path, text: str, reason: str) -> None:
    path = tmp_path / "keys.yaml"
    path.write_text(text)
    with pytest.raises(CredentialsError) as refused:
        Watched("SLUICE_API_KEYS_FILE", path, lambda text: parse_keys(text, EXAMPLES))
    message = str(refused.value)
    assert message.startswith(f"SLUICE_API_KEYS_FILE: {path}: ")
    assert reason in message
    assert "in-clear" not in message


def test_a_file_that_is_missing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CredentialsError, match="No such file"):
        Watched("SLUICE_API_KEYS_FILE", tmp_path / "none", lambda text: parse_keys(text, EXAMPLES))


async def test_a_file_that_changes_is_read_again_and_one_that_breaks_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.security.watched.LOOK_SECONDS", 0.02)
    path = tmp_path / "keys.yaml"
    path.write_text("keys:\n" + entry(OLD))
    keys = Watched("SLUICE_API_KEYS_FILE", path, lambda text: parse_keys(text, EXAMPLES))
    running = asyncio.create_task(keys.run())
    try:
        # As secrets are mounted: another file is put in its place.
        other = tmp_path / "other"
        other.write_text("keys:\n" + entry(NEW))
        other.rename(path)
        await until_changes(keys, 1)
        assert list(keys.value) == [digest_of(NEW)]
        path.write_text("keys: [")
        await asyncio.sleep(0.1)
        path.unlink()
        await asyncio.sleep(0.1)
        assert list(keys.value) == [digest_of(NEW)]
        path.write_text("keys:\n" + entry(OLD))
        await until_changes(keys, 2)
        assert list(keys.value) == [digest_of(OLD)]
    finally:
        running.cancel()


async def until_changes(keys: Watched[Any], changes: int) -> None:
    deadline = monotonic() + 10
    while keys.changes < changes:
        assert monotonic() < deadline
        await asyncio.sleep(0.01)
