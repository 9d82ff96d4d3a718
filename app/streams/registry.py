"""All streams that this worker has to do with: those that it produces, and those that its connections read.

A stream that another worker produces has a tail here too, which a follower fills from the log. When that worker dies,
one follower takes the stream over, and the readers of the tail see nothing of it.
"""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from time import monotonic
from typing import NamedTuple

import structlog

from app.admission.places import Place, Places
from app.errors import CursorGone, Internal, NotFound
from app.events import Failed
from app.routing.maker import Maker
from app.routing.ways import Readers
from app.streams.account import Account
from app.streams.committer import Committer
from app.streams.driver import Driver, Turn
from app.streams.generation import NO_PAST, Generation, Past
from app.streams.live import LiveStream
from app.streams.log import START, Backend, Cursor, State, StreamRecord, StreamState, format_id
from app.streams.reader import Reader
from app.streams.tail import Tail

log = structlog.get_logger(__name__)

CANCELLED = Failed("cancelled", "The stream was cancelled.", 499, retryable=False)


class Status(NamedTuple):
    """What is said of a stream to its owner."""

    stream_id: str
    state: State
    last_id: str | None
    resumable: bool


Handler = Callable[[LiveStream], Awaitable[None]]


class Streams:
    """See the module. `follow` and `unread` are set by the composition root, since they need a `Streams` themselves.
    `accounts` are told, once each, of every generation that ended here.

    Args:
        backend: the stream log.
        owner: this worker's name, unique to this incarnation of it.
        maker: what a record's stream is made by; raises `ModelNotFound`.
        stream_seconds_max, stream_bytes_max: see `Driver`.
        pod_draining: whether all workers of this machine are about to stop.
        places: who may generate.
    """

    def __init__(
        self,
        backend: Backend,
        owner: str,
        maker: Callable[[StreamRecord], Maker],
        stream_seconds_max: float,
        stream_bytes_max: int,
        pod_draining: Callable[[], bool],
        places: Places,
    ) -> None:
        self.backend = backend
        self.owner = owner
        self.committer = Committer(backend)
        self.draining = False
        self.released = False
        # Not in a worker that will soon be gone: what it took, the next one would have to take from it.
        self.takes_over = True
        self.pod_draining = pod_draining
        self.places = places
        self.live: dict[str, LiveStream] = {}
        self.follow: Handler | None = None
        self.unread: Handler | None = None
        self.accounts: list[Callable[[Account], None]] = []
        self.stream_seconds_max = stream_seconds_max
        self.driver = Driver(self.committer, stream_seconds_max, stream_bytes_max, self._ended)
        self._maker = maker

    @property
    def owned(self) -> list[LiveStream]:
        """The streams that are produced here."""
        return [live for live in self.live.values() if live.generation is not None]

    def check_model(self, record: StreamRecord) -> None:
        """Whether the stream can be made here.

        Raises:
            ModelNotFound
        """
        self._maker(record)

    def resume_strategy(self, record: StreamRecord) -> str:
        """How the stream's model is gone on with: continue, replay or fail.

        Raises:
            ModelNotFound
        """
        return self._maker(record).resume

    def enter(self, record: StreamRecord, last: Cursor, silent_seconds: float = 0.0) -> LiveStream:
        """The stream's place on this worker; its tail begins behind `last`.

        Args:
            silent_seconds: for how long it is known to have said nothing.
        """
        live = self.live.get(record.stream_id)
        if live is None:
            live = self.live[record.stream_id] = LiveStream(record, Tail(last), monotonic() - silent_seconds)
        return live

    def produce(
        self,
        live: LiveStream,
        fence: int,
        past: Past = NO_PAST,
        readers: Readers | None = None,
        place: Place | None = None,
    ) -> None:
        """Run the stream's upstreams here, behind its `past`.

        Args:
            place: its own from now on; where it is not held yet, its turn is waited for. None takes one past all.
        """
        maker = self._maker(live.record)
        place = place or self.places.take_past_all()
        generation = self.own(live, fence, past, place)
        # Who began the stream knew; who takes it over goes by its surface, of which one alone has a word for a reset.
        readers = readers or ("told" if live.record.surface == "native" else "bound")
        turn: Turn | None = None
        if not place.held:
            live.tail.ahead = lambda: place.ahead
            turn = partial(self._turn, live, place)
        run = self.driver.run(generation, maker, readers, turn)
        generation.task = asyncio.create_task(run, name=f"produce-{live.stream_id}")

    async def _turn(self, live: LiveStream, place: Place) -> None:
        try:
            await place.turn()
        finally:
            live.tail.ahead = None

    def own(self, live: LiveStream, fence: int, past: Past = NO_PAST, place: Place | None = None) -> Generation:
        """Be the one who appends to the stream; until that is over, `place` is held."""
        over = partial(self._over, live, place)
        generation = live.generation = Generation(live.record, live.tail, fence, over, past)
        return generation

    def _over(self, live: LiveStream, place: Place | None, generation: Generation) -> None:
        live.generation = None
        live.heard_at = monotonic()
        if place is not None:
            place.leave()
        if generation.lost:
            log.warning("stream was taken over", stream=live.stream_id)
            live.tail.forget_unnamed()
            self._fill(live)
        self.tidy(live)

    async def attach(self, stream_id: str, principal: str, after: Cursor, key: str = "") -> Reader:
        """A reader of the stream from behind `after` on; to be given back to `detach`.

        Args:
            key: the stream must have been begun by this `idempotency`.

        Raises:
            NotFound: no such stream, or another's.
            CursorGone: the log ends before `after`, and will not come to it.
            LogUnavailable
        """
        live = self.live.get(stream_id)
        if live is None:
            record, state = await self._described(stream_id, principal, key)
            live = self.enter(record, state.last, state.orphaned_seconds)
            # Somebody else may have entered it meanwhile, whose tail is not where the stream is said to have ended.
            live.tail.ended = live.tail.ended or (state.state != "running" and live.tail.last == state.last)
            live.orphaned = not live.tail.ended and not state.owner_alive
        elif not _is_of(live.record, principal, key):
            raise NotFound("There is no such stream.")
        live.readers += 1  # before anything is awaited: it keeps the stream in its place
        try:
            # The tail of a stream that is produced elsewhere may be a moment behind, and a reader come from there.
            if after > live.tail.last and not await self.may_come(stream_id, after):
                raise CursorGone("The stream's log does not reach this id.")
        except BaseException:
            live.readers -= 1
            self._read_no_more(live)
            raise
        if live.unread is not None:
            live.unread.cancel()
            live.unread = None
        self._fill(live)
        return Reader(live.record, live.tail, self.backend, after)

    def detach(self, reader: Reader) -> None:
        """The reader's connection has ended; if it was the last, the disconnect policy decides."""
        reader.close()
        live = self.live[reader.record.stream_id]
        live.readers -= 1
        self._read_no_more(live)

    async def may_come(self, stream_id: str, cursor: Cursor) -> bool:
        """Whether the log holds the event at `cursor`, or what follows it may still come.

        After a failover that lost events the log ends before what was delivered: the owner goes on behind that, or a
        takeover begins another epoch. Until then nobody is told that his place is gone.

        Raises:
            LogUnavailable
        """
        found = await self.backend.describe(stream_id)
        if found is None:
            return False
        state = found[1]
        return cursor <= state.last or (state.state == "running" and state.in_doubt)

    def _read_no_more(self, live: LiveStream) -> None:
        if live.readers == 0 and live.generation is not None and self.unread is not None:
            live.unread = asyncio.create_task(self._handle(self.unread, live), name=f"unread-{live.stream_id}")
        self.tidy(live)

    async def cancel(self, stream_id: str, principal: str) -> None:
        """Stop a stream, wherever it is produced; one that has ended stays as it ended.

        Raises:
            NotFound, LogUnavailable
        """
        await self._described(stream_id, principal)
        # One that has just begun takes its first step: cancelled before that, it would account for nothing, and what
        # was taken of its caller's limits would stay taken.
        await asyncio.sleep(0)
        live = self.live.get(stream_id)
        if live is not None and live.generation is not None:
            self.cancel_here(live)
        else:
            await self.backend.request_cancel(stream_id)

    def cancel_here(self, live: LiveStream) -> None:
        """End a stream that is produced here with the error `cancelled`, and stop its upstream."""
        generation = live.generation
        if generation is not None:
            self.committer.add(generation, CANCELLED)
            generation.stop()

    async def status(self, stream_id: str, principal: str) -> Status:
        """What is known of a stream.

        Raises:
            NotFound, LogUnavailable
        """
        _, state = await self._described(stream_id, principal)
        live = self.live.get(stream_id)
        produced = live.generation if live is not None else None
        resumable = self.committer.available if produced is None else self.committer.logs(produced)
        last_id = None if state.last == START else format_id(stream_id, state.last)
        return Status(stream_id, state.state, last_id, resumable)

    def tidy(self, live: LiveStream) -> None:
        """Forget a stream that nobody reads and nobody fills here; the log remembers it."""
        if live.readers == 0 and live.generation is None and live.follower is None:
            self.live.pop(live.stream_id, None)

    async def _described(self, stream_id: str, principal: str, key: str = "") -> tuple[StreamRecord, StreamState]:
        found = await self.backend.describe(stream_id)
        if found is None or not _is_of(found[0], principal, key):
            raise NotFound("There is no such stream.")
        return found

    def _ended(self, account: Account) -> None:
        # The line is the stream's, which any number of requests may have read.
        structlog.contextvars.unbind_contextvars("request_id", "trace_id")
        for tell in self.accounts:
            tell(account)

    def _fill(self, live: LiveStream) -> None:
        """See to it that somebody fills the tail as long as it is read."""
        idle = live.generation is None and live.follower is None and not live.tail.ended
        if live.readers and idle and self.follow is not None:
            live.follower = asyncio.create_task(self._handle(self.follow, live), name=f"follow-{live.stream_id}")

            def left(_task: asyncio.Task[None]) -> None:
                live.follower = None
                # Somebody may have come between the follower's last look and this: with nobody who fills the tail, he
                # would get heartbeats for ever.
                if live.tail.broken is None:
                    self._fill(live)
                self.tidy(live)

            live.follower.add_done_callback(left)

    async def _handle(self, handler: Handler, live: LiveStream) -> None:
        try:
            await handler(live)
        except Exception:
            # A task that nobody awaits: what it raises would otherwise be seen by nobody.
            log.exception("stream task failed", stream=live.stream_id)
            if handler is self.follow:
                live.tail.break_off(Internal("The server failed."))


def _is_of(record: StreamRecord, principal: str, key: str) -> bool:
    return record.principal == principal and (not key or record.idempotency == key)
