"""Two attempts at once, of which the first to say something goes on: for upstreams whose first token is late."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from app.errors import UpstreamError
from app.routing.attempt import Attempt


async def first_to_speak(
    attempt: Attempt,
    patience_seconds: float,
    another: Callable[[], Awaitable[Attempt | None]],
    failed: Callable[[Attempt, UpstreamError], Awaitable[None]],
) -> Attempt:
    """`attempt`, or the one that is begun when it is late; the other is closed.

    Args:
        another: begins the second attempt, if there may be one.
        failed: told of the one that failed first, and closes it; a last failure is found by whoever reads it.
    """
    runners = [attempt]
    try:
        if await _speaks(attempt, patience_seconds) or (second := await another()) is None:
            return attempt
        runners.append(second)
        while len(runners) > 1:
            await _any_ready(runners)
            silent = [runner for runner in runners if runner.run_apart().failed]
            error = silent[0].run_apart().error if silent else None
            if isinstance(error, UpstreamError):
                runners.remove(silent[0])
                await failed(silent[0], error)
                continue
            winner = silent[0] if silent else next(runner for runner in runners if runner.run_apart().has_news)
            await _close([runner for runner in runners if runner is not winner])
            return winner
        return runners[0]
    except BaseException:
        await _close(runners)
        raise


async def _speaks(attempt: Attempt, seconds: float) -> bool:
    try:
        async with asyncio.timeout(seconds):
            await attempt.run_apart().ready()
    except TimeoutError:
        return False
    return True


async def _any_ready(runners: Sequence[Attempt]) -> None:
    waits = [asyncio.create_task(runner.run_apart().ready()) for runner in runners]
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()
        await asyncio.wait(waits)


async def _close(attempts: Sequence[Attempt]) -> None:
    for attempt in attempts:
        await attempt.close()
