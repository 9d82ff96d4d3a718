"""The stream log: what a stream has said so far, durable for as long as anybody may come back for it.

Producer and readers meet here and nowhere else. A backend stores whole events under their cursors, says who owns a
stream, and refuses whoever owned it before. Ids go out only for what is in the log.

Three backends keep one contract (`tests/contract/`): `memory_log`, `lmdb`, `redis`.
"""

import re
from collections.abc import Sequence
from typing import Literal, NamedTuple, Protocol

import msgspec

from app.errors import CursorGone, InvalidCursor
from app.events import Event
from app.providers.base import GenerationRequest
from app.streams.documents import Documents
from app.streams.grant import Grant

LEASE_SECONDS = 5.0
STREAM_ID = re.compile(r"[0-9A-Za-z_-]{22,40}")
_CURSOR = re.compile(r"([0-9A-Za-z_-]{22,40})\.(0|[1-9]\d{0,8})\.(0|[1-9]\d{0,8})")

State = Literal["running", "done", "error", "cancelled"]
OnDisconnect = Literal["cancel", "grace", "finish"]


class Cursor(NamedTuple):
    """A place in a stream: just behind the event of this number. `START` is before the first.

    `seq` counts from 1; a `Reset` has the seq 0 of the epoch that it opens.
    """

    epoch: int
    seq: int


START = Cursor(0, 0)


def format_id(stream_id: str, cursor: Cursor) -> str:
    """The SSE id of the event at `cursor`: `<stream_id>.<epoch>.<seq>`."""
    return f"{stream_id}.{cursor.epoch}.{cursor.seq}"


def parse_id(text: str) -> tuple[str, Cursor]:
    """The stream and the place that an id names.

    Raises:
        InvalidCursor: it is not an id of ours.
    """
    found = _CURSOR.fullmatch(text)
    if found is None:
        raise InvalidCursor("Last-Event-ID is not an id of this server's streams.")
    return found[1], Cursor(int(found[2]), int(found[3]))


def successor(cursor: Cursor, following: Cursor) -> bool:
    """Whether nothing that counts can lie between the two: the next number, or the reset that opens a later epoch,
    which voids whatever lies before it."""
    return following == (cursor.epoch, cursor.seq + 1) or (following.seq == 0 and following.epoch > cursor.epoch)


def check_contiguous(after: Cursor, found: Sequence[tuple[Cursor, Event]]) -> None:
    """Refuse a page with a hole.

    Raises:
        CursorGone: events behind `after` are no longer in the log.
    """
    for cursor, _ in found:
        if not successor(after, cursor):
            raise CursorGone("The stream's log no longer holds what follows this id.")
        after = cursor


class StreamRecord(msgspec.Struct, frozen=True):
    """What never changes about a stream; it outlives the producer, who may have to be replaced.

    `idempotency` is a hash of principal and key, empty without a key; `body_hash` tells one body from another. `grant`
    is what it took of its principal's account, `metadata` what the caller wants to be told with its end. `asked_unix`:
    when its request came, before any wait; 0 in what an earlier version wrote.
    """

    stream_id: str
    principal: str
    surface: str
    request: GenerationRequest
    on_disconnect: OnDisconnect
    grace_seconds: float
    created_unix: int
    idempotency: str = ""
    body_hash: str = ""
    grant: Grant | None = None
    metadata: dict[str, str] = {}
    asked_unix: float = 0.0


class StreamState(msgspec.Struct, frozen=True):
    """What does change.

    Args:
        owner: the worker that produces, or the last one that did.
        owner_alive: whether that worker's lease holds; false once it was released.
        orphaned_seconds: how long it has not; 0 while it does.
        fence: rises at every takeover; an append under an older one is refused.
        takeovers: how many from an owner that died; one that was released is not counted.
        last: the last event in the log.
        cancel_requested: somebody asked the owner to stop.
        readers_seen: whether a reader on any worker was seen within the lease's time.
        in_doubt: the store may have lost events that it had taken, and nobody has written since. The owner goes on
            behind what it said, or a claim opens another epoch; until then a cursor beyond the end may be a good one.
    """

    state: State
    owner: str
    owner_alive: bool
    orphaned_seconds: float
    fence: int
    takeovers: int
    last: Cursor
    cancel_requested: bool
    readers_seen: bool
    in_doubt: bool = False


class Append(msgspec.Struct, frozen=True):
    """Events of one stream, contiguous from `first` on. A terminal event, if there is one, is the last."""

    stream_id: str
    fence: int
    first: Cursor
    events: Sequence[Event]


# ok: in the log. fenced: another worker owns the stream now, or it has ended. full: a bound of the store or the stream
# is reached; a terminal event is taken all the same. unavailable: this part of the store does not answer, others do.
AppendResult = Literal["ok", "fenced", "full", "unavailable"]


class Fill(NamedTuple):
    """How full a store is. Newcomers are refused before it is all used (`room`). `bytes_max` 0: it knows no bound."""

    bytes_used: int
    bytes_max: int


class StreamLog(Protocol):
    """Events, in order, by cursor. Every method raises `LogUnavailable` when the store does not answer in time."""

    async def create(self, record: StreamRecord, owner: str) -> StreamRecord:
        """Begin a stream owned by `owner` with fence 1; where the record's idempotency key is known, nothing is
        made and that stream's record is returned instead.

        Raises:
            LogFull: the store has no room for another stream.
        """
        ...

    async def known(self, record: StreamRecord) -> StreamRecord | None:
        """The stream that has the record's idempotency key already, if one does. Nothing is made."""
        ...

    async def append(self, batch: Sequence[Append]) -> list[AppendResult]:
        """Add to many streams at once, each wholly or not at all. A repeated append changes nothing and is ok.

        Raises:
            LogUnavailable: for none of them the store has answered.
        """
        ...

    def append_nowait(self, batch: Sequence[Append]) -> list[AppendResult] | None:
        """As `append`, where that needs no waiting, as in a store of this machine; None where it does."""
        ...

    async def read(self, stream_id: str, after: Cursor, events_max: int) -> list[tuple[Cursor, Event]]:
        """Up to `events_max` events behind `after` (some more where they were written together).

        Raises:
            CursorGone: what follows `after` was trimmed.
            NotFound: there is no such stream, or no longer.
        """
        ...

    async def describe(self, stream_id: str) -> tuple[StreamRecord, StreamState] | None:
        """Both halves of what is known of a stream; None if nothing is."""
        ...

    async def wait(self, stream_id: str, after: Cursor, seconds: float) -> None:
        """Return once there may be news behind `after`, at the latest after `seconds`."""
        ...

    async def reap(self) -> None:
        """Delete, a bounded number at a time, what ended longer ago than it is kept."""
        ...

    async def fill(self) -> Fill:
        """How full the store is; of several servers, the fullest."""
        ...

    async def aclose(self) -> None: ...


class Leases(Protocol):
    """Who produces. The same backends implement it; each worker has one name, and one lease for all its streams."""

    async def beat(self, owner: str) -> None:
        """Extend the worker's lease, from now."""
        ...

    async def expire(self, owner: str) -> None:
        """End a worker's lease now: it is known to be dead, or lets go of everything."""
        ...

    async def claim(self, stream_id: str, owner: str, fence: int) -> int | None:
        """Take a running stream whose owner's lease is over, if its fence is still `fence`; the new fence, or None.

        Where the store may have lost events of it, the claim also opens another epoch: its `Reset` is then all that the
        log holds, and every cursor of an earlier epoch goes on with it.
        """
        ...

    async def release(self, stream_id: str, fence: int) -> None:
        """Give a stream up, for anybody to claim at once."""
        ...

    async def orphans(self) -> list[str]:
        """Running streams whose owner's lease is over."""
        ...

    async def request_cancel(self, stream_id: str) -> None:
        """Ask the owner, wherever it is, to stop."""
        ...

    async def cancel_requests(self, owner: str) -> list[str]:
        """Which of the worker's running streams somebody asked to stop."""
        ...

    async def wait_for_cancels(self, owner: str, seconds: float) -> None:
        """Return once somebody may have asked to stop one of the worker's streams, at the latest after `seconds`."""
        ...

    async def touch_readers(self, stream_ids: Sequence[str]) -> None:
        """Note that somebody is reading these, for owners elsewhere."""
        ...


class Backend(StreamLog, Leases, Documents, Protocol):
    """A store that is all of them."""
