"""Makes what the files of credentials hold: an API key, or a user's password, with the line that goes into the file.

    python -m deploy.credentials key acme --tier pro [--expires 2027-01-01] [--redis redis://…]
    python -m deploy.credentials user ana --tier pro            # asks for the password

The key is shown once and kept nowhere; the file gets its hash.
"""

import argparse
import asyncio
import getpass
import re
import secrets
import sys
from datetime import UTC, datetime
from hashlib import sha256

from argon2 import PasswordHasher

from app.errors import LogUnavailable
from app.security.api_keys import NAME
from app.security.redis_keys import RedisKeys
from app.tiers import EXAMPLES, LEAST_TIER

PREFIX = "sk-sluice-"
PASSWORD_CHARACTERS_MIN = 12


def main(arguments: list[str]) -> int:
    """Do what is asked; the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m deploy.credentials", description=(__doc__ or "").partition("\n")[0]
    )
    kinds = parser.add_subparsers(dest="kind", required=True)
    key = kinds.add_parser("key", help="an API key")
    key.add_argument("--expires", default="", help="a day or a moment, ISO 8601")
    key.add_argument("--redis", default="", help="keep it there, in place of a file")
    user = kinds.add_parser("user", help="a user with a password")
    for each in (key, user):
        each.add_argument("principal", type=_name)
        each.add_argument("--tier", type=_name, default=LEAST_TIER)
    asked = parser.parse_args(arguments)
    return _key(asked) if asked.kind == "key" else _user(asked)


def _key(asked: argparse.Namespace) -> int:
    key = PREFIX + secrets.token_urlsafe(32)
    digest = sha256(key.encode())
    expires = 0.0
    if asked.expires:
        try:
            moment = datetime.fromisoformat(asked.expires)
        except ValueError:
            return _fail(f"--expires: {asked.expires!r} is no day or moment")
        expires = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    if asked.redis:
        try:
            asyncio.run(_put(asked.redis, digest.digest(), asked.principal, asked.tier, expires))
        except (LogUnavailable, ValueError) as error:
            return _fail(str(error))
        print("Kept in Redis. The key, which is shown only now:")
    else:
        until = f", expires: {asked.expires}" if asked.expires else ""
        print("The line for SLUICE_API_KEYS_FILE, below `keys:`")
        print(f'  - {{hash: "sha256:{digest.hexdigest()}", principal: {asked.principal}, tier: {asked.tier}{until}}}')
        print("The key, which is shown only now:")
    print(f"  {key}")
    return 0


async def _put(url: str, digest: bytes, principal: str, tier: str, expires: float) -> None:
    keys = await RedisKeys(url, EXAMPLES).open()
    try:
        await keys.put(digest, principal, tier, expires=expires)
    finally:
        await keys.aclose()


def _user(asked: argparse.Namespace) -> int:
    # From a pipe too, so that a secret store can feed it; never as an argument, which every process can read.
    password = getpass.getpass("Password: ") if sys.stdin.isatty() else sys.stdin.readline().rstrip("\n")
    if len(password) < PASSWORD_CHARACTERS_MIN:
        return _fail(f"a password needs {PASSWORD_CHARACTERS_MIN} characters")
    print("The line for SLUICE_USERS_FILE, below `users:`")
    print(f'  - {{name: {asked.principal}, password: "{PasswordHasher().hash(password)}", tier: {asked.tier}}}')
    return 0


def _name(text: str) -> str:
    if re.fullmatch(NAME, text) is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no name: letters, digits and ._@- only")
    return text


def _fail(message: str) -> int:
    print(f"credentials: {message}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
