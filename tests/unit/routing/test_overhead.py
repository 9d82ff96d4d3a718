"""What a healthy stream pays for what is there to rescue others."""

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from time import process_time

from app.events import Done, Token, Usage
from app.providers.base import GenerationRequest, Pour
from app.routing.bill import Bill
from app.routing.breaker import Breaker
from app.routing.gate import Gate
from app.routing.route import Route
from app.routing.target import Target
from tests.support.providers import REQUEST

TOKENS = 20_000
MICROSECONDS_MAX = 3.0


class Quick:
    """Says the same word all the time."""

    async def generate(
        self, request: GenerationRequest, pour: Pour | None = None
    ) -> AsyncGenerator[Token | Done, None]:
        del request, pour
        token = Token("word ")
        for _ in range(TOKENS):
            yield token
        yield Done("stop", Usage(1, TOKENS))

    async def aclose(self) -> None:
        """Nothing is held."""


async def bare() -> None:
    async with aclosing(Quick().generate(REQUEST)) as events:
        async for _ in events:
            pass


async def routed() -> None:
    route = Route([Target("only", Quick(), Gate(9, 9, 1.0), Breaker(10, 1.0))], after_first_token="continue")
    attempts = route.begin(REQUEST, "", "told", Bill("s"))
    async with aclosing(attempts.events(lambda _: False)) as events:
        async for _ in events:
            pass


async def microseconds(run: Callable[[], Awaitable[None]]) -> float:
    """CPU time of a token, at best: what else the machine does can only add to it."""
    found = []
    for _ in range(5):
        started = process_time()
        await run()
        found.append(process_time() - started)
    return min(found) / TOKENS * 1e6


async def test_a_token_of_a_healthy_stream_costs_less_than_three_microseconds_more() -> None:
    assert await microseconds(routed) - await microseconds(bare) < MICROSECONDS_MAX
