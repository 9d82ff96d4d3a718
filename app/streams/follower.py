"""Fills the tail of a stream that another worker produces, and takes the stream over when that worker is gone."""

import asyncio
import contextlib
from time import monotonic

import structlog

from app.errors import CursorGone, LogUnavailable, NotFound, ProducerLost, SluiceError
from app.events import Event, Failed, Reset, Token
from app.observability.figures import figures
from app.observability.metrics import TAKEOVERS
from app.streams.generation import Generation, Past
from app.streams.live import LiveStream
from app.streams.log import START, Cursor, StreamRecord, StreamState, check_contiguous
from app.streams.packing import Unreadable
from app.streams.registry import CANCELLED, Streams
from app.streams.tail import Tail

log = structlog.get_logger(__name__)

PAGE_EVENTS_MAX = 500
# How long a stream may be silent before its owner's lease is looked at. It is for owners on other machines: of those on
# this one `rescue` knows at once.
SILENT_SECONDS = 1.0
# Takeovers at one time, where a worker died that had many of the streams that are read here.
RESCUES_MAX = 4
# Between two tries while the log does not answer.
RETRY_SECONDS = 0.5
# A request that brings its workers down must not go through all of them.
TAKEOVERS_MAX = 3
LOST = ProducerLost("The worker that generated this died, and nobody went on where it stopped.").as_event()


class Follower:
    """Follows streams; one for each worker.

    Args:
        lease_seconds: how long owners get to renew their leases once the log is back.
    """

    def __init__(self, streams: Streams, lease_seconds: float) -> None:
        self._streams = streams
        self._backend = streams.backend
        self._lease_seconds = lease_seconds
        self._claim_from = 0.0
        self._unwanted: dict[str, int] = {}

    def log_was_away(self) -> None:
        """Claim nothing for a while: owners could not renew their leases either, and go on producing."""
        self._claim_from = monotonic() + self._lease_seconds

    async def follow(self, live: LiveStream) -> None:
        """Until the stream ends, nobody reads it here any more, or it is produced here."""
        look_at = monotonic() + (0 if live.orphaned else SILENT_SECONDS)
        while live.readers and not live.tail.ended and live.generation is None:
            try:
                fetched = await self._fetch(live)
                now = monotonic()
                if fetched:
                    live.heard_at = now
                    look_at = now + SILENT_SECONDS
                elif now >= look_at:
                    await self._look(live)
                    look_at = monotonic() + SILENT_SECONDS
                if fetched < PAGE_EVENTS_MAX and live.generation is None:
                    await self._backend.wait(live.stream_id, live.tail.last, SILENT_SECONDS)
            except Unreadable as error:
                log.warning("stream cannot be read by this version", stream=live.stream_id, detail=error.detail)
                live.tail.break_off(error)
                return
            except LogUnavailable:
                await asyncio.sleep(RETRY_SECONDS)
            except SluiceError as error:
                live.tail.break_off(error)
                return

    async def rescue(self) -> None:
        """Take over at once what is read here and has lost its owner.

        Raises:
            LogUnavailable
        """
        turn = asyncio.Semaphore(RESCUES_MAX)

        async def one(stream_id: str) -> None:
            async with turn:
                found = await self._backend.describe(stream_id)
                if found is not None and found[1].state == "running" and not found[1].owner_alive:
                    await self.take_over(*found)
                # A log of this machine answers without waiting: many takeovers would hold the loop to the last.
                await asyncio.sleep(0)

        lost = [stream_id for stream_id in await self._backend.orphans() if self._is_followed(stream_id)]
        for error in await asyncio.gather(*map(one, lost), return_exceptions=True):
            # Whatever one stream's trouble is, its own follower meets it within a second.
            if isinstance(error, LogUnavailable) and not isinstance(error, Unreadable):
                raise error

    def _is_followed(self, stream_id: str) -> bool:
        live = self._streams.live.get(stream_id)
        return live is not None and live.follower is not None

    async def _fetch(self, live: LiveStream) -> int:
        try:
            page = await self._backend.read(live.stream_id, live.tail.last, PAGE_EVENTS_MAX)
        except CursorGone:
            if await self._streams.may_come(live.stream_id, live.tail.last):
                return 0
            raise
        check_contiguous(live.tail.last, page)
        # Another task may have brought some of it meanwhile: a follower and the reaper can meet at one stream.
        new = [entry for entry in page if entry[0] > live.tail.last]
        if new:
            live.tail.extend(new)
        return len(page)

    async def _look(self, live: LiveStream) -> None:
        """The stream is silent: see whether somebody still produces it."""
        found = await self._backend.describe(live.stream_id)
        if found is None:
            raise NotFound("The stream's log is gone.")
        if found[1].state == "running" and not found[1].owner_alive:
            await self.take_over(*found)

    async def take_over(self, record: StreamRecord, state: StreamState, go_on: bool = True) -> None:
        """Own a stream whose owner is gone, unless somebody else is faster; go on with it, or else end it.

        Raises:
            LogUnavailable
        """
        if monotonic() < self._claim_from or not self._streams.takes_over:
            return
        said = Said()
        with contextlib.suppress(CursorGone):
            # Read before it is claimed: what cannot be read here is left to those who can.
            await self._hear(record.stream_id, said)
        fence = await self._backend.claim(record.stream_id, self._streams.owner, state.fence)
        if fence is None:
            return
        log.info("took a stream over", stream=record.stream_id, owner_before=state.owner)
        try:
            # What the former owner said meanwhile, or the reset that the claim had to write.
            await self._hear(record.stream_id, said)
            live = self._streams.enter(record, said.last, state.orphaned_seconds)
            while live.tail.last < said.last:
                await self._fetch(live)
                live.heard_at = monotonic()
            if live.tail.last > said.last:
                raise CursorGone("The stream's log does not reach what was delivered here.")
        except CursorGone:
            await self._end_broken(record, fence)
            return
        except BaseException:
            # Owned and not produced, it would keep its readers waiting for ever.
            self._unwanted[record.stream_id] = fence
            raise
        end = self._end(record, state, said) if go_on else LOST
        figures.add(TAKEOVERS, 1, "continued" if end is None else "ended")
        if end is None:
            self._streams.produce(live, fence, said.until(live.heard_at))
        else:
            log.warning("gave a stream up", stream=record.stream_id, takeovers=state.takeovers, code=end.code)
            self._streams.committer.add(self._streams.own(live, fence, said.until(live.heard_at)), end)

    def _end(self, record: StreamRecord, state: StreamState, said: "Said") -> Failed | None:
        """Why a stream that was taken over ends there; None if it can go on."""
        if state.cancel_requested:
            return CANCELLED
        if state.takeovers >= TAKEOVERS_MAX or said.tool_calls:
            return LOST
        try:
            resume = self._streams.resume_strategy(record)
        except SluiceError as error:  # a model that is not served any more
            return error.as_event()
        return LOST if said.void and resume == "fail" else None

    async def _end_broken(self, record: StreamRecord, fence: int) -> None:
        """End a claimed stream whose log has lost a part: nobody can tell what was said there."""
        if live := self._streams.live.get(record.stream_id):
            live.tail.break_off(CursorGone("The stream's log has lost a part of it."))
        self._unwanted[record.stream_id] = fence
        if found := await self._backend.describe(record.stream_id):
            # A tail of its own, since that of the readers ends before the gap.
            past = Past(answered=True)  # what was lost had been said
            generation = Generation(record, Tail(found[1].last), fence, on_over=lambda _: None, past=past)
            self._streams.committer.add(generation, LOST)
            del self._unwanted[record.stream_id]

    async def give_back(self) -> None:
        """Let others claim what was claimed here and could not be used.

        Raises:
            LogUnavailable
        """
        for stream_id, fence in list(self._unwanted.items()):
            await self._backend.release(stream_id, fence)
            del self._unwanted[stream_id]

    async def _hear(self, stream_id: str, said: "Said") -> None:
        """Read on to the log's end."""
        while page := await self._backend.read(stream_id, said.last, PAGE_EVENTS_MAX):
            check_contiguous(said.last, page)
            for cursor, event in page:
                said.add(cursor, event)


class Said:
    """What a stream has said so far, as far as its next producer must know. `void`: something before does not count."""

    def __init__(self) -> None:
        self.last: Cursor = START
        self.void = False
        self.content_tokens = 0
        self.tool_calls = False
        self._texts: list[str] = []
        self._answered = self._spoken = False

    def until(self, heard_at: float) -> Past:
        """All of it, of which the last came about then."""
        text = "".join(self._texts)
        return Past(text, self.content_tokens, self._answered, heard_at if self._spoken else None)

    def add(self, cursor: Cursor, event: Event) -> None:
        self.last = cursor
        if isinstance(event, Reset):
            self.void = True
            self.content_tokens, self.tool_calls = 0, False
            self._texts.clear()
        elif isinstance(event, Token):
            self._spoken = True
            self._answered = self._answered or event.kind != "thought"
            if event.kind == "content":
                self._texts.append(event.text)
                self.content_tokens += 1
            # Half a tool call cannot be gone on with: its other half would be of another call.
            self.tool_calls = self.tool_calls or event.kind == "tool_call"
