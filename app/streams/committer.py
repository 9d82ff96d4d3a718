"""Group commit: whatever all streams of this worker said since the last commit goes into the log in one.

It clocks itself. The next commit starts when the last is done and something is new: at rest an event is committed in
the same turn of the event loop, and under load commits grow by themselves. A timer would add its period to every gap.
"""

import asyncio
from collections.abc import Sequence
from time import monotonic

import structlog

from app.errors import LimitExceeded, LogUnavailable
from app.events import ENDS, Event
from app.observability.figures import figures
from app.observability.metrics import COMMIT_EVENTS, COMMIT_SECONDS
from app.streams.backlog import Backlog
from app.streams.generation import Generation
from app.streams.log import Append, AppendResult, StreamLog

log = structlog.get_logger(__name__)

# A provider that outruns the log waits, once this much of a stream is not committed yet.
PENDING_EVENTS_MAX = 1024
PENDING_BYTES_MAX = 256 * 1024
# While the log is away: how often it is tried.
RETRY_SECONDS = 0.5


class Committer:
    """One for each worker."""

    def __init__(self, stream_log: StreamLog) -> None:
        self._log = stream_log
        self._loop = asyncio.get_running_loop()  # kept, since asking for it is a system call
        # Dictionaries for their order: first come, first committed.
        self._dirty: dict[Generation, None] = {}
        self._backlog = Backlog()
        self._settled = asyncio.Event()
        self._turn: asyncio.Handle | None = None
        self._committing: asyncio.Task[None] | None = None
        self._returning: asyncio.Task[None] | None = None
        self._away = False
        self._seconds, self._sizes = figures.tally(COMMIT_SECONDS), figures.tally(COMMIT_EVENTS)
        self.events = self.unlogged_events = 0
        """How many were delivered, and how many of those without an id."""

    @property
    def available(self) -> bool:
        """Whether the log answers; a part of it may not."""
        return not self._away

    def logs(self, generation: Generation) -> bool:
        """Whether what the stream says gets its ids at once."""
        return not self._away and generation not in self._backlog

    def add(self, generation: Generation, event: Event) -> None:
        """Have an event committed; it is dropped if the stream has ended."""
        if generation.add(event):
            self._mark(generation)

    def add_content(self, generation: Generation, texts: Sequence[str]) -> None:
        """As `add`, for pieces of content."""
        if generation.add_content(texts):
            self._mark(generation)

    async def aclose(self) -> None:
        """Give up what still waits for the log's return."""
        if self._returning is not None:
            self._returning.cancel()
            await asyncio.wait([self._returning])

    async def room(self, generation: Generation, events: int = PENDING_EVENTS_MAX) -> None:
        """Wait until fewer `events` of the stream wait for their commit."""
        while len(generation.pending) >= events:
            self._settled.clear()
            await self._settled.wait()

    async def flush(self) -> None:
        """Wait until everything added so far is in the log, or delivered without it."""
        while self._dirty or self._committing is not None:
            self._settled.clear()
            await self._settled.wait()

    def _mark(self, generation: Generation) -> None:
        self._dirty[generation] = None
        if self._turn is None and self._committing is None:
            # Behind whatever else this turn of the loop has read: all of that goes into one commit.
            self._turn = self._loop.call_soon(self._commit)

    def _commit(self) -> None:
        self._turn = None
        dirty, self._dirty = self._dirty, {}
        generations, batch, more = [], [], []
        for generation in dirty:
            if not generation.pending:
                continue  # it was lost meanwhile
            if not generation.fence:
                self._deliver_unknown(generation)
                continue
            generations.append(generation)
            batch.append(generation.take_pending())
            if generation.pending:  # behind a reset there is more, which is an append of its own
                more.append(generation)
        if self._backlog or self._away:
            generations, batch = self._keep_behind(generations, batch)
        results = self._append_nowait(batch) if batch else []
        if results is None:
            self._dirty.update(dict.fromkeys(more))
            self._committing = asyncio.create_task(self._commit_later(generations, batch), name="commit")
            return
        self._settle(generations, batch, results)
        for generation in more:
            self._mark(generation)
        self._settled.set()

    def _append_nowait(self, batch: Sequence[Append]) -> list[AppendResult] | None:
        begun = monotonic()
        try:
            results = self._log.append_nowait(batch)
        except Exception:
            log.exception("stream log failed")
            return None
        if results is not None:
            self._count(batch, begun)
        return results

    def _count(self, batch: Sequence[Append], begun: float) -> None:
        """A commit is done."""
        events = 0
        for append in batch:
            events += len(append.events)
        self._seconds.add(monotonic() - begun)
        self._sizes.add(events)
        self.events += events

    async def _commit_later(self, generations: Sequence[Generation], batch: Sequence[Append]) -> None:
        try:
            results = await self._append(batch)
            if results is None:
                self._away = True
                self._keep(generations, batch)
            else:
                self._settle(generations, batch, results)
        finally:
            # Whatever happened, or no stream of this worker would ever be committed again.
            self._committing = None
            self._settled.set()
            if self._dirty:
                self._commit()

    def _settle(
        self, generations: Sequence[Generation], batch: Sequence[Append], results: Sequence[AppendResult]
    ) -> None:
        for generation, append, result in zip(generations, batch, results, strict=True):
            if result == "ok":
                generation.committed(append)
            elif result == "unavailable":
                self._keep([generation], [append])
            else:
                self._refused(generation, append, result)

    def _deliver_unknown(self, generation: Generation) -> None:
        """It began while the log was away, which knows nothing of it."""
        try:
            while generation.pending:
                self._deliver_unlogged(generation, generation.take_pending())
        except Exception:
            # One stream's trouble must not keep a commit from all others that are in it.
            log.exception("delivering without the log failed", stream=generation.record.stream_id)

    async def _append(self, batch: Sequence[Append]) -> list[AppendResult] | None:
        begun = monotonic()
        try:
            results = await self._log.append(batch)
            self._count(batch, begun)
            return results
        except LogUnavailable as error:
            if not self._away:
                log.warning("stream log does not answer", detail=error.detail or error.message)
        except Exception:
            log.exception("stream log failed")
        return None

    def _refused(self, generation: Generation, append: Append, result: AppendResult) -> None:
        if result == "fenced":
            generation.lose()
            return
        generation.stop()
        generation.rewind(append.first)
        if not isinstance(append.events[-1], ENDS):
            full = LimitExceeded("The stream log has no room for more of this stream.")
            generation.add_last(full.as_event())
            self._mark(generation)

    def _keep_behind(self, generations: list[Generation], batch: list[Append]) -> tuple[list[Generation], list[Append]]:
        """Keep what has to wait behind what waits already; returns the rest."""
        left: tuple[list[Generation], list[Append]] = ([], [])
        for generation, append in zip(generations, batch, strict=True):
            if self.logs(generation):
                left[0].append(generation)
                left[1].append(append)
            else:
                self._keep([generation], [append])
        return left

    def _keep(self, generations: Sequence[Generation], batch: Sequence[Append]) -> None:
        """Deliver without the log, and keep for its return."""
        if self._returning is None:
            log.warning("stream log unavailable, streams go on without it", streams=len(batch), all=self._away)
            self._returning = asyncio.create_task(self._await_return(), name="log-return")
        for generation, append in zip(generations, batch, strict=True):
            self._backlog.add(generation, append)
            self._deliver_unlogged(generation, append)

    def _deliver_unlogged(self, generation: Generation, append: Append) -> None:
        self.unlogged_events += len(append.events)
        generation.deliver_unlogged(append.events)

    async def _await_return(self) -> None:
        while self._backlog:
            await asyncio.sleep(RETRY_SECONDS)
            generations = list(self._backlog)
            batch = [self._backlog.append_of(generation) for generation in generations]
            results = await self._append(batch)
            self._away = results is None
            if results is None:
                continue
            for generation, append, result in zip(generations, batch, results, strict=True):
                if result == "unavailable":
                    continue
                # More may have been kept while this was on its way.
                cursors = self._backlog.settle(generation, append)
                if result == "ok":
                    generation.tail.name_unlogged(cursors)
                elif result == "fenced":
                    self._backlog.drop(generation)
                    generation.lose()
                elif not generation.tail.ended:  # else its end was kept meanwhile, and has room in the next round
                    self._backlog.drop(generation)
                    self._refused(generation, append, result)
        log.info("stream log has all of its streams again")
        self._returning = None
