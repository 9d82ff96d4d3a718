"""How a stream begins: it takes a place, gets its record in the log, and is produced here.

A request whose Idempotency-Key has begun a stream before takes no place, and joins that one.
"""

from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from app.admission.places import Place
from app.errors import Draining, IdempotencyMismatch, LogFull, LogUnavailable
from app.routing.ways import Readers
from app.streams.log import START, StreamRecord
from app.streams.packing import Unreadable
from app.streams.registry import Streams

# Waits for a place, in whatever way whoever wants it can be told that the wait is over.
Patience = Callable[[Coroutine[Any, Any, None]], Awaitable[None]]


class Opener:
    """Begins streams on this worker. `queued` are those that will begin once there is a place, by their ids.

    Args:
        degrade: whether streams begin while the log is away; they cannot be resumed.
    """

    def __init__(self, streams: Streams, degrade: bool) -> None:
        self.queued: dict[str, StreamRecord] = {}
        self._streams = streams
        self._degrade = degrade

    async def open(
        self,
        draft: StreamRecord,
        readers: Readers = "bound",
        priority: int = 0,
        patience: Patience | None = None,
        background: bool = False,
        line: Callable[[], str] | None = None,
    ) -> StreamRecord:
        """Begin a stream, or find the one that the same Idempotency-Key began.

        Args:
            readers: what they make of an answer that begins again.
            priority: the higher, the sooner there is a place for it.
            patience: waits for the place; by default until this task is cancelled.
            background: nobody waits for an answer's status: the stream begins at once and waits for its place by
                itself, for as long as it may run.
            line: asked in whose it waits, where it has to; by default the principal's.

        Raises:
            Draining, Overloaded, ModelNotFound, LogUnavailable, LogFull
            IdempotencyMismatch: the key came with another body before.
        """
        self._refuse_in_drain()
        streams = self._streams
        streams.check_model(draft)
        place = streams.places.take_now(draft.principal, priority)
        if place is None:
            # Who joins a stream takes no place, and does not wait for one.
            if draft.idempotency and await streams.backend.known(draft) is not None:
                return await self._begin(draft, readers, None)
            whose = draft.principal if line is None else line()
            place = streams.places.queue(whose, priority, streams.stream_seconds_max if background else None)
        try:
            if not place.held and not background:
                await self._wait(draft, place, patience)
            return await self._begin(draft, readers, place)
        except BaseException:
            place.leave()
            raise

    async def _wait(self, draft: StreamRecord, place: Place, patience: Patience | None) -> None:
        self.queued[draft.stream_id] = draft
        try:
            await (patience(place.turn()) if patience else place.turn())
        finally:
            del self.queued[draft.stream_id]
        self._refuse_in_drain()

    def _refuse_in_drain(self) -> None:
        # A worker that stops alone still takes what comes on connections that were open: a few requests.
        if self._streams.released or self._streams.pod_draining():
            raise Draining("The server is shutting down.", retry_after_seconds=1)

    async def _begin(self, draft: StreamRecord, readers: Readers, place: Place | None) -> StreamRecord:
        streams = self._streams
        try:
            record = await streams.backend.create(draft, streams.owner)
        except (LogFull, Unreadable):
            raise
        except LogUnavailable:
            if not self._degrade:
                raise
            streams.produce(streams.enter(draft, START), fence=0, readers=readers, place=place)
            return draft
        if record.stream_id == draft.stream_id:
            streams.produce(streams.enter(record, START), fence=1, readers=readers, place=place)
            return record
        if record.body_hash != draft.body_hash:
            raise IdempotencyMismatch("This Idempotency-Key was used with another request.")
        if place is not None:
            place.leave()
        return record
