"""What it costs a request to be known and counted: CPU time of this process alone, one request after the other.

    .venv/bin/python -m loadtests.bench.access                     # on a Redis of its own
    .venv/bin/python -m loadtests.bench.access lmdb:///tmp/limits memory://

Each request shows an API key, and takes of two request limits, the tokens of a minute and a slot, all in one step. What
it gives back at its end is counted apart: one by one here, together for all streams that end at a time where there are
many. The store's own time is not in it, and waiting costs nothing. Of several rounds the cheapest counts, since
neighbours only ever make it dearer; the median beside it says by how much they did.
"""

import argparse
import asyncio
import gc
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import process_time, time
from typing import Any, NamedTuple

import jwt
import uvloop

from app.limits.account import Limit
from app.limits.limiter import Limiter
from app.limits.quotas import Hold, Quotas
from app.limits.stores import open_counters
from app.providers.base import GenerationRequest
from app.security.address import Addresses
from app.security.api_keys import parse_keys
from app.security.authenticator import Authenticator
from app.security.bearer import Bearer, TrustedIssuer
from app.security.jwks import FileKeys, parse_secrets
from app.security.tickets import Tickets
from app.security.watched import Watched
from app.streams.account import Account
from app.tiers import Tier
from loadtests.bench import caller
from loadtests.bench.caller import KEY, write_keys
from tests.support.redis import RedisServer

REQUESTS, ROUNDS = 2_000, 7
# 110 us were measured where neighbours left the core alone for a moment, 180 with ten times as many processes as cores.
CHECK_MICROSECONDS_MAX = 150
SECRET = "s" * 43
TIERS = {name: Tier(**limits) for name, limits in caller.TIERS.items()}
RATES = (Limit("generate/60", 60_000, 10**9), Limit("generate/3600", 3_600_000, 10**9))
REQUEST = GenerationRequest("m", [{"role": "user", "content": "Say it. " * 40}], max_tokens=100)


class Cost(NamedTuple):
    """Microseconds of one: the cheapest round, and the usual one."""

    least: float
    usual: float

    def __str__(self) -> str:
        return f"{self.least:6.1f} us  (median {self.usual:.1f})"


async def cost(one: Callable[[int], Awaitable[Any]], disturbed: Callable[[], int] = lambda: 0) -> Cost | str:
    """Of one; why it is not known.

    Args:
        disturbed: a round during which this changes does not count.
    """
    rounds = []
    for turn in range(ROUNDS):
        gc.collect()
        before, began = disturbed(), process_time()
        for number in range(REQUESTS):
            await one(turn * REQUESTS + number)
        await asyncio.sleep(0.05)  # what is given back goes out behind the requests' backs
        if disturbed() == before:
            rounds.append((process_time() - began) / REQUESTS * 1e6)
    return Cost(min(rounds), median(rounds)) if rounds else "  the store did not answer in time"


def authenticator(folder: Path) -> Authenticator:
    keys, secrets = folder / "keys.yaml", folder / "secret"
    write_keys(keys)
    secrets.write_text(SECRET)
    source = FileKeys(Watched("secret", secrets, lambda text: parse_secrets(text, "HS256")))
    issuer = TrustedIssuer("https://id.example.org/", "bench", source, "corp:", None, "free")
    known = Watched("keys", keys, lambda text: parse_keys(text, TIERS))
    return Authenticator(True, TIERS, Addresses(), Bearer([issuer], TIERS), Tickets(None, 60, 60), known)  # type: ignore[arg-type]


def showing(credential: str) -> dict[str, Any]:
    headers = [(b"host", b"localhost"), (b"content-type", b"application/json"), (b"x-request-id", b"1" * 32)]
    return {"headers": [*headers, (b"authorization", f"Bearer {credential}".encode())], "query_string": b""}


def token(number: int) -> str:
    claims = {"iss": "https://id.example.org/", "aud": "bench", "sub": f"u{number}", "exp": int(time()) + 900}
    return jwt.encode(claims, SECRET, "HS256")


async def identities(folder: Path) -> None:
    known = authenticator(folder)
    same, tokens = showing(token(0)), [showing(token(number)) for number in range(REQUESTS * ROUNDS)]
    print(f"an API key                  {await cost(lambda _: known.identify(showing(KEY)))}")
    print(f"a token that was seen before{await cost(lambda _: known.identify(same))}")
    print(f"a token that is new, HS256  {await cost(lambda number: known.identify(tokens[number]))}")


@asynccontextmanager
async def checking(folder: Path, url: str) -> AsyncIterator[tuple[Callable[[int], Awaitable[Hold]], Quotas]]:
    """What finds out who asks and takes of all limits, and whose quotas that takes of."""
    known, limiter = authenticator(folder), Limiter(await open_counters(url), 1.5)
    quotas = Quotas(limiter, TIERS)

    async def check(number: int) -> Hold:
        scope = showing(KEY)
        return await quotas.take(scope, await known.identify(scope), RATES, f"s{number}", REQUEST)

    try:
        yield check, quotas
    finally:
        await limiter.aclose()


async def check_cost(folder: Path, url: str) -> Cost | str:
    """To be known and counted, once."""
    async with checking(folder, url) as (check, quotas):
        return await cost(check, lambda: quotas.limiter.fallbacks)


async def limits(folder: Path, url: str) -> Cost | str:
    """What a check costs on that store."""
    checked = await check_cost(folder, url)
    print(f"a key and all limits, {url.partition(':')[0]:6}{checked}")
    async with checking(folder, url) as (check, quotas):

        async def whole(number: int) -> None:
            hold = await check(number + REQUESTS * ROUNDS)
            account = Account("s", "m", "native", "key:acme", "completed", "u", 1, 80, 90, None, None, 1.0)
            quotas.settle(account._replace(grant=hold.grant))

        print(f"the same, and given back    {await cost(whole, lambda: quotas.limiter.fallbacks)}")
    return checked


async def main(urls: Sequence[str]) -> dict[str, Cost | str]:
    """What a check costs on each store, by its URL."""
    with TemporaryDirectory() as folder:
        await identities(Path(folder))
        return {url: await limits(Path(folder), url) for url in urls}


def dear(checks: Mapping[str, Cost | str]) -> list[str]:
    """Those that cost more than they may, or nobody knows what, and why."""
    found = []
    for url, checked in checks.items():
        if isinstance(checked, str):
            found.append(f"{url}: {checked.strip()}")
        elif checked.least > CHECK_MICROSECONDS_MAX:
            found.append(f"{url}: a check costs {checked.least:.0f} us, more than {CHECK_MICROSECONDS_MAX}")
    return found


def run(words: Sequence[str] | None = None) -> int:
    """The exit code: 1 where a check costs more than it may, and that was asked for."""
    parser = argparse.ArgumentParser(prog="python -m loadtests.bench.access", description=__doc__)
    parser.add_argument("stores", nargs="*", help="URLs of stores; without any, a Redis of its own")
    parser.add_argument("--assert", dest="check", action="store_true", help="fail when a check costs too much")
    options = parser.parse_args(words)
    with ExitStack() as stack:
        stores = options.stores or [stack.enter_context(RedisServer()).url]
        complaints = dear(uvloop.run(main(stores)))
    for complaint in complaints:
        print(f"bench: {complaint}", file=sys.stderr)
    return int(bool(complaints) and options.check)


if __name__ == "__main__":
    sys.exit(run())
