"""Passwords: checked slowly, apart from everything else, and in bounded numbers."""

import asyncio
from collections.abc import Iterator
from time import monotonic

import pytest
from argon2 import PasswordHasher

from app.errors import IdentityUnavailable
from app.security.users import NOBODY, WAITING_MAX, Passwords, parse_users
from app.tiers import EXAMPLES
from tests.contract.lag import LoopLag

HASH = PasswordHasher().hash("correct horse")
USERS = parse_users(f'users: [{{name: ana, password: "{HASH}", tier: pro}}]', EXAMPLES)


@pytest.fixture
def passwords() -> Iterator[Passwords]:
    made = Passwords()
    yield made
    made.close()


async def test_a_user_is_known_by_the_password_and_by_no_other(passwords: Passwords) -> None:
    found = await passwords.check(USERS, EXAMPLES, "ana", "correct horse")
    assert found is not None
    assert (found.account, found.tier_name) == ("user:ana", "pro")
    for name, password in (("ana", "wrong"), ("ana", ""), ("bob", "correct horse"), ("", ""), ("ana", HASH)):
        assert await passwords.check(USERS, EXAMPLES, name, password) is None


async def test_a_password_that_is_far_too_long_is_refused(passwords: Passwords) -> None:
    assert await passwords.check(USERS, EXAMPLES, "ana", "x" * 2000) is None


async def test_somebody_who_is_not_there_takes_as_long_to_refuse(passwords: Passwords) -> None:
    async def seconds(name: str) -> float:
        began = monotonic()
        for _ in range(3):
            assert await passwords.check(USERS, EXAMPLES, name, "wrong") is None
        return monotonic() - began

    await seconds("ana")
    known, unknown = await seconds("ana"), await seconds("nobody")
    assert 0.3 < unknown / known < 3
    assert NOBODY.split("$")[:4] == HASH.split("$")[:4]


async def test_checking_holds_no_stream_up_and_too_many_at_once_are_refused(passwords: Passwords) -> None:
    async with LoopLag() as lag:
        checks = [passwords.check(USERS, EXAMPLES, "ana", "wrong") for _ in range(WAITING_MAX + 3)]
        outcomes = await asyncio.gather(*checks, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes].count(IdentityUnavailable) == 3
    assert outcomes.count(None) == WAITING_MAX
    assert lag.worst_seconds < 0.1
    assert await passwords.check(USERS, EXAMPLES, "ana", "correct horse") is not None


@pytest.mark.parametrize(
    "text",
    [
        "users: [{name: ana, password: secret}]",
        'users: [{name: ana, password: "$2b$12$abcdefghijklmnopqrstuv"}]',
        f'users: [{{name: "a b", password: "{HASH}"}}]',
        f'users: [{{name: ana, password: "{HASH}", tier: gold}}]',
        f'users: [{{name: ana, password: "{HASH}"}}, {{name: ana, password: "{HASH}"}}]',
        "users: [",
        "",
    ],
)
def test_a_file_that_is_wrong_is_refused_without_showing_a_password(text: str) -> None:
    with pytest.raises(ValueError, match=r"\w") as refused:
        parse_users(text, EXAMPLES)
    assert "secret" not in str(refused.value)
    assert HASH.rpartition("$")[2] not in str(refused.value)
