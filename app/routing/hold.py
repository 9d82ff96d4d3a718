"""Keeps an answer's first tokens back for a moment, in which a failure is one that nobody has seen."""

from asyncio import timeout
from collections.abc import AsyncGenerator
from contextlib import aclosing
from time import monotonic

from app.events import Done, Token
from app.routing.pump import Pump


async def held_back(
    pump: Pump, events: AsyncGenerator[Token | Done, None], tokens: int, seconds: float
) -> AsyncGenerator[Token | Done, None]:
    """The pump's `events`, once so many tokens have come or so much time has passed since the first.

    Args:
        tokens: 0: as many as come in time.
        seconds: 0: until the tokens are there.
    """
    async with aclosing(events):
        kept = await _first(pump, events, tokens, seconds)
        for event in kept:
            yield event
        if not kept or type(kept[-1]) is not Done:
            async for event in events:
                yield event


async def _first(
    pump: Pump, events: AsyncGenerator[Token | Done, None], tokens: int, seconds: float
) -> list[Token | Done]:
    kept: list[Token | Done] = []
    until: float | None = None
    while not tokens or len(kept) < tokens:
        if until is not None and not await _ready(pump, until):
            break
        try:
            event = await anext(events)
        except StopAsyncIteration:
            break
        kept.append(event)
        if type(event) is Done:
            break
        if until is None and seconds:
            until = monotonic() + seconds
    return kept


async def _ready(pump: Pump, until: float) -> bool:
    """Whether there is an event in time."""
    try:
        async with timeout(max(0.0, until - monotonic())):
            await pump.ready()
    except TimeoutError:
        return False
    return True
