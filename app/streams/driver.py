"""Drives a generation to an end that is always said, and accounts for it once."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing
from functools import partial
from time import monotonic

import structlog

from app.errors import Internal, LimitExceeded, SluiceError, UpstreamTimeout
from app.events import Done, Failed, Token
from app.observability import tracing
from app.routing.bill import Bill
from app.routing.maker import Maker, Making
from app.routing.ways import Readers
from app.streams.account import Account
from app.streams.allowance import Allowance
from app.streams.committer import PENDING_EVENTS_MAX, Committer
from app.streams.generation import Generation
from app.streams.grant import Grant

log = structlog.get_logger(__name__)


Turn = Callable[[], Awaitable[None]]


class Driver:
    """Runs what upstreams say into generations.

    Args:
        stream_seconds_max: longest life of one generation.
        stream_bytes_max: most text that one generation may hold, in characters of it.
        account: told of each generation when it is over here.

    `extend`, if it is set, takes more of a caller's account for a stream that has used up its grant; None where there
    is no more.
    """

    extend: Callable[[Grant], Awaitable[Grant | None]] | None = None

    def __init__(
        self,
        committer: Committer,
        stream_seconds_max: float,
        stream_bytes_max: int,
        account: Callable[[Account], None],
    ) -> None:
        self._committer = committer
        self._stream_seconds_max = stream_seconds_max
        self._stream_bytes_max = stream_bytes_max
        self._account = account

    async def run(self, generation: Generation, maker: Maker, readers: Readers, turn: Turn | None = None) -> None:
        """Generate until the end, which is a `Done` or an error.

        Args:
            turn: waited for before anything is asked for.
        """
        bill = Bill(generation.record.stream_id, more=partial(self._more, generation))
        try:
            end = await self._end(generation, maker, readers, turn, bill)
            generation.rescued = bill.rescued
            self._committer.add(generation, end)
        finally:
            # A cancelled task keeps its frames, and they the generation: that circle would wait for the collector.
            generation.task = None
            if generation.end is None:  # else it has its end before it, where all is counted
                generation.pace.left()
            self._account(_account(generation, bill))

    async def _end(
        self, generation: Generation, maker: Maker, readers: Readers, turn: Turn | None, bill: Bill
    ) -> Done | Failed:
        seconds_max = maker.seconds_within(self._stream_seconds_max)
        deadline = asyncio.timeout(seconds_max)
        try:
            async with deadline:
                if turn is not None:
                    await turn()
                making = maker.begin(generation.record.request, generation.said, readers, bill)
                return await self._drive(generation, making)
        except SluiceError as error:
            return error.as_event()
        except (Exception, asyncio.CancelledError) as error:
            if isinstance(error, asyncio.CancelledError) and (generation.ended or _is_cancelled()):
                # Whoever stops a generation says how it ended. An event loop that is torn down says nothing: the stream
                # has not ended, and another worker goes on with it. Any other cancellation is the provider's own.
                raise
            if isinstance(error, TimeoutError) and deadline.expired():
                if seconds_max < self._stream_seconds_max:
                    return UpstreamTimeout("The upstream took too long to finish.").as_event()
                return LimitExceeded(f"The stream reached its {seconds_max:g} s.").as_event()
            log.exception("generation failed", stream=generation.record.stream_id)
            return Internal("The server failed.").as_event()
        finally:
            del deadline  # it has the task, which keeps this frame if it is cancelled: a circle

    async def _drive(self, generation: Generation, making: Making) -> Done:
        left = Allowance(self._stream_bytes_max, generation)

        def pour(texts: Sequence[str]) -> bool:
            if len(generation.pending) >= PENDING_EVENTS_MAX or not left.covers(texts):
                return False
            self._committer.add_content(generation, texts)
            return True

        async with aclosing(making.events(pour)) as events:
            async for event in events:
                if type(event) is Token:
                    if left.used_up:
                        left.extend(await self._more(generation))
                    left.spend(event)
                elif type(event) is Done:
                    duration_ms = round((monotonic() - generation.started) * 1000)
                    return Done(event.finish_reason, event.usage, duration_ms, event.cost)
                self._committer.add(generation, event)
                if len(generation.pending) >= PENDING_EVENTS_MAX:
                    await self._committer.room(generation)
                elif left.pause_due():
                    await self._committer.room(generation, events=1)
        raise Internal("The server failed.", detail="a generation that ended without an end")

    async def _more(self, generation: Generation) -> int:
        """Tokens that could be taken besides those that were granted."""
        grant = generation.grant
        if self.extend is None or grant is None or not grant.more_tokens:
            return 0
        more = await self.extend(grant)
        if more is None:
            return 0
        generation.grant = more
        return more.output_tokens_max - grant.output_tokens_max


def _is_cancelled() -> bool:
    """Whether somebody asked this very task to stop."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _account(generation: Generation, bill: Bill) -> Account:
    end, record, usage = generation.end, generation.record, bill.usage
    # Without an end, or with one that was refused, it goes on elsewhere.
    outcome = "moved" if end is None or generation.lost else "completed" if type(end) is Done else end.code  # type: ignore[union-attr]
    return Account(
        stream_id=record.stream_id,
        model=record.request.model,
        surface=record.surface,
        principal=record.principal,
        outcome=outcome,
        upstream=bill.upstream,
        attempts=len(bill.items),
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        cost=bill.cost,
        first_token_seconds=generation.pace.first_token_seconds,
        seconds=monotonic() - generation.started,
        grant=generation.grant,
        rescued=bill.rescued,
        trace=tracing.trace_of(record.request.headers),
    )
