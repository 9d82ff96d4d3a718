"""Users with passwords, for people who ask the token endpoint: a file of argon2 hashes, checked one at a time.

    users:
      - {name: ana, password: "$argon2id$v=19$m=65536,t=3,p=4$…", tier: pro}

A check takes some 50 ms and 64 MiB on purpose. It runs on one thread of its own behind a short queue, so that guessing
costs the guesser time and costs streams nothing.
"""

import asyncio
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

import yaml
from argon2 import PasswordHasher
from argon2.exceptions import Argon2Error, InvalidHash
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from app.errors import IdentityUnavailable
from app.security.api_keys import NAME, first_error
from app.security.principal import Principal
from app.tiers import LEAST_TIER, Tier

WAITING_MAX = 8
PASSWORD_BYTES_MAX = 1024
# What the password of somebody who is not there is compared with, so that it takes as long. Of a random password.
NOBODY = "$argon2id$v=19$m=65536,t=3,p=4$u9Zk68xZTLkNOdKrqX7Dlw$CBX0SpxlGjyY7m1yqYvOf7UTKPUw04N3c/Ue/gDBOHo"


class User(BaseModel):
    """One user of the file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(pattern=NAME)
    password: str = Field(pattern=r"^\$argon2id\$.{20,300}$")
    tier: str = LEAST_TIER


class UserFile(BaseModel):
    """The file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    users: list[User]


def parse_users(text: str, tiers: Mapping[str, Tier]) -> Mapping[str, User]:
    """The users of a file, by name.

    Raises:
        ValueError: it is not such a file, or names a tier that there is not.
    """
    try:
        file = UserFile.model_validate(yaml.safe_load(text))
    except yaml.YAMLError:
        raise ValueError("not YAML") from None
    except ValidationError as error:
        raise ValueError(first_error(error)) from None
    for user in file.users:
        if user.tier not in tiers:
            raise ValueError(f"there is no tier {user.tier!r}")
    users = {user.name: user for user in file.users}
    if len(users) < len(file.users):
        raise ValueError("a user is there twice")
    return users


class Passwords:
    """Checks passwords, one after the other."""

    def __init__(self) -> None:
        self._hasher = PasswordHasher()
        self._thread = ThreadPoolExecutor(1, "passwords")
        self._waiting = 0

    async def check(
        self, users: Mapping[str, User], tiers: Mapping[str, Tier], name: str, password: str
    ) -> Principal | None:
        """Whose name and password these are.

        Raises:
            IdentityUnavailable: too many ask at once.
        """
        if self._waiting >= WAITING_MAX:
            raise IdentityUnavailable("Too many passwords to check just now.", retry_after_seconds=2)
        user = users.get(name)
        hashed = NOBODY if user is None else user.password
        self._waiting += 1
        # Counted until the thread has done it, also where nobody waits for the answer any more.
        check = asyncio.get_running_loop().run_in_executor(self._thread, self._matches, hashed, password)
        check.add_done_callback(self._checked)
        matches = await asyncio.shield(check)
        if user is None or not matches:
            return None
        return Principal.of(f"user:{user.name}", user.tier, tiers[user.tier])

    def close(self) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _checked(self, check: "asyncio.Future[bool]") -> None:
        self._waiting -= 1
        if not check.cancelled():
            check.exception()

    def _matches(self, hashed: str, password: str) -> bool:
        if len(password.encode()) > PASSWORD_BYTES_MAX:
            return False
        try:
            return self._hasher.verify(hashed, password)
        except (Argon2Error, InvalidHash):
            return False
