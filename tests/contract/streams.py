"""Streams for the contract's tests: records, tokens, and the shortest way into a log and out of it."""

import secrets
from collections.abc import Sequence

from app.events import Done, Event, Failed, Token, Usage
from app.providers.base import GenerationRequest
from app.streams.log import START, Append, AppendResult, Cursor, StreamLog, StreamRecord, StreamState

DONE = Done("stop", Usage(3, 5), 1200)
FAILED = Failed("upstream_stalled", "It stopped.", 504, True)
PAGES_MAX = 100_000


def record(stream_id: str = "", idempotency: str = "", body_hash: str = "") -> StreamRecord:
    """A stream's record; a new stream's unless it is named."""
    return StreamRecord(
        stream_id=stream_id or secrets.token_urlsafe(18),
        principal="alice",
        surface="native",
        request=GenerationRequest("m", [{"role": "user", "content": "Sag Grüße, 🌍\u2028!"}], extra={"n": [1, None]}),
        on_disconnect="grace",
        grace_seconds=15.0,
        created_unix=1_700_000_000,
        idempotency=idempotency,
        body_hash=body_hash,
    )


def words(first: int, count: int) -> list[Token]:
    """`count` tokens, numbered from `first`, each with a text of its own."""
    return [Token(f"w{number} ", index=number) for number in range(first, first + count)]


async def begin(log: StreamLog, owner: str = "w1") -> str:
    """A new stream's id."""
    return (await log.create(record(), owner)).stream_id


async def put(
    log: StreamLog, stream_id: str, first: int, events: Sequence[Event], *, fence: int = 1, epoch: int = 0
) -> AppendResult:
    """Append to one stream."""
    (result,) = await log.append([Append(stream_id, fence, Cursor(epoch, first), events)])
    return result


async def read_all(
    log: StreamLog, stream_id: str, after: Cursor = START, page: int = 100
) -> list[tuple[Cursor, Event]]:
    """All behind `after`, page by page."""
    found: list[tuple[Cursor, Event]] = []
    for _ in range(PAGES_MAX):
        more = await log.read(stream_id, after, page)
        if not more:
            return found
        found += more
        after = more[-1][0]
    raise AssertionError("the log never ends")


async def state(log: StreamLog, stream_id: str) -> StreamState:
    """The state of a stream that exists."""
    known = await log.describe(stream_id)
    assert known is not None
    return known[1]


def numbered(first: int, events: Sequence[Event], epoch: int = 0) -> list[tuple[Cursor, Event]]:
    """What a log has to hold once `events` were put at `first`."""
    return [(Cursor(epoch, seq), event) for seq, event in enumerate(events, first)]
