"""Waits for news of one bucket's streams, on one connection for all of them.

A task blocks in XREAD on every stream that somebody waits for, on a wake key of its own, and on one by which its worker
hears that it is to cancel something. Whoever begins to wait for a stream that is not among them writes to the wake key,
so that nobody waits out a BLOCK. The same write goes out every second as a probe: a connection on which it does not
arrive is half open, or leads to a server that no longer gets the writes, and is given up. Stream ids are always
explicit, so a new connection goes on where the last one stopped.
"""

import asyncio
import contextlib
import random
import secrets
from bisect import bisect_right
from collections.abc import Callable, Sequence
from operator import itemgetter
from time import monotonic
from typing import Any

import structlog
from redis.exceptions import RedisError

from app.errors import LogUnavailable
from app.events import Event
from app.streams.log import Cursor, successor
from app.streams.packing import Unreadable
from app.streams.redis.entry import decode_entry, entry_cursor
from app.streams.redis.event_scripts import WAKE
from app.streams.redis.link import LOCATE_SECONDS, RETRY_SECONDS_MIN, Link
from app.streams.redis.wire import Argument, ReplyError, Wire
from app.streams.waiters import Waiters

log = structlog.get_logger(__name__)

BLOCK_MS = 5_000
# What arrived is kept for the read that follows a wait, so that it costs no second round trip.
KEPT_EVENTS_MAX = 64
# Entries of one stream in one reply; more follow in the next.
PAGE_ENTRIES_MAX = 64
# A stream that nobody waits for is listened to a little longer: its readers mostly come back for the next event.
LINGER_SECONDS = 2.0
# Every XREAD names every stream, which costs about a microsecond a stream, here and in Redis. A pause behind each one,
# by their number, keeps that to a few percent of a core, and lets more arrive at once. At 200 streams of 20 events a
# second, an event cost 103 µs here and 60 there without, 43 and 15 with it.
PAUSE_SECONDS_EACH = 0.000025
PAUSE_SECONDS_MAX = 0.005
# Between two tries to connect. Short, since while Redis is away they fail here, without a packet.
RETRY_SECONDS_MAX = 0.25
_BEGINNING = "0-0"
_cursor = itemgetter(0)


class _Followed:
    """A stream that is listened to: its events in (`start`, `position`] are kept."""

    def __init__(self, position: Cursor) -> None:
        self.restart(position)
        self.used = monotonic()

    def restart(self, position: Cursor) -> None:
        self.start = self.position = position
        self.kept: list[tuple[Cursor, Event]] = []

    def add(self, last: Cursor, events: list[tuple[Cursor, Event]]) -> None:
        new = [pair for pair in events if pair[0] > self.position]
        if not new or not successor(self.position, new[0][0]):
            self.restart(last)  # a hole: whoever reads across it must be told by the log
            return
        self.position = last
        self.kept += new
        if len(self.kept) > KEPT_EVENTS_MAX:
            dropped = self.kept[: -KEPT_EVENTS_MAX // 2]
            self.start = dropped[-1][0]
            del self.kept[: len(dropped)]

    def behind(self, after: Cursor) -> list[tuple[Cursor, Event]]:
        if not self.start <= after < self.position:
            return []
        found = self.kept[bisect_right(self.kept, after, key=_cursor) :]
        return found if found and successor(after, found[0][0]) else []


class Tail:
    """One bucket's.

    Args:
        probe_seconds: a connection that leads nowhere is noticed after at most 1.5 times this.
    """

    def __init__(self, link: Link, probe_seconds: float) -> None:
        self._link = link
        self._probe_seconds = probe_seconds
        self._waiters = Waiters()
        self._followed: dict[str, _Followed] = {}
        self._listening: frozenset[str] = frozenset()
        self._keys: list[str] = []
        self._handle = secrets.token_hex(8)
        self._woken = 0
        self._seen = 0
        # Who is called when somebody wants this worker to cancel a stream, and how far that was heard.
        self._owner = ""
        self._on_cancel: Callable[[str], None] | None = None
        self._cancels_seen = _BEGINNING
        self._wanted = asyncio.Event()
        self._wake_wanted = asyncio.Event()
        self._wire: Wire | None = None
        self._tasks: list[asyncio.Task[None]] = []

    async def wait(self, stream_id: str, after: Cursor, seconds: float) -> None:
        """Until there may be news behind `after`, at most for `seconds`."""
        followed = self._followed.get(stream_id)
        if followed is None:
            followed = self._followed[stream_id] = _Followed(after)
        elif followed.position < after:
            followed.restart(after)
        elif followed.position > after:
            return
        followed.used = monotonic()
        self._start()
        self._wanted.set()
        if stream_id not in self._listening:
            self._wake_wanted.set()
        await self._waiters.wait(stream_id, seconds)
        followed.used = monotonic()

    def listen_for_cancels(self, owner: str, on_cancel: Callable[[str], None]) -> None:
        """Call `on_cancel` when the worker is asked to cancel a stream, from now on; a hint, which may be lost."""
        if owner != self._owner:
            self._owner, self._on_cancel = owner, on_cancel
            self._start()
            self._wanted.set()
            self._wake_wanted.set()

    def kept(self, stream_id: str, after: Cursor, events_max: int) -> list[tuple[Cursor, Event]]:
        """Events behind `after` that arrived already; empty means nothing, ask the log."""
        followed = self._followed.get(stream_id)
        return followed.behind(after)[:events_max] if followed is not None else []

    async def aclose(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._waiters.wake_all()

    def _start(self) -> None:
        if not self._tasks:
            bucket = self._link.bucket
            self._tasks = [
                asyncio.create_task(self._run(), name=f"redis-tail-{bucket}"),
                asyncio.create_task(self._wake(), name=f"redis-wake-{bucket}"),
                asyncio.create_task(self._probe(), name=f"redis-probe-{bucket}"),
            ]

    async def _run(self) -> None:
        """Listen for ever, over as many connections as it takes."""
        pause = RETRY_SECONDS_MIN
        while True:
            await self._wanted.wait()
            try:
                if not self._link.away:
                    self._wire = await self._link.open_wire()
                    pause = RETRY_SECONDS_MIN
                    await self._listen(self._wire)
            except (RedisError, OSError, TimeoutError) as error:
                log.debug("tail lost", bucket=self._link.bucket, reason=repr(error))
            finally:
                await self._drop()
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311
            pause = min(2 * pause, RETRY_SECONDS_MAX)

    async def _listen(self, wire: Wire) -> None:
        while True:
            if not self._followed and not self._owner:
                self._wanted.clear()
                await self._wanted.wait()
            reply = await wire.ask(BLOCK_MS / 1000 + LOCATE_SECONDS, *self._question())
            if isinstance(reply, ReplyError):
                raise ConnectionError(str(reply))
            for key, entries in reply or ():
                self._arrived(key.decode(), entries)
            await asyncio.sleep(min(PAUSE_SECONDS_MAX, PAUSE_SECONDS_EACH * len(self._listening)))

    def _question(self) -> tuple[Argument, ...]:
        """The XREAD for all that is followed now."""
        prefix = self._link.prefix
        if self._followed.keys() != self._listening:
            self._listening = frozenset(self._followed)
            self._keys = [f"{prefix}s:{stream_id}" for stream_id in self._listening]
        positions = [self._followed[stream_id].position for stream_id in self._listening]
        places = [f"{epoch}-{seq}" for epoch, seq in positions]
        options = ("XREAD", "COUNT", PAGE_ENTRIES_MAX, "BLOCK", BLOCK_MS, "STREAMS")
        own_keys, own_places = [f"{prefix}w:{self._handle}"], [f"{self._seen}-0"]
        if self._owner:
            own_keys.append(f"{prefix}c:{self._owner}")
            own_places.append(self._cancels_seen)
        return (*options, *own_keys, *self._keys, *own_places, *places)

    def _arrived(self, key: str, entries: Sequence[Any]) -> None:
        kind, _, stream_id = key.removeprefix(self._link.prefix).partition(":")
        if kind == "w":
            self._seen = max(self._seen, entry_cursor(entries[-1][0]).epoch)
            return
        if kind == "c":
            self._cancels_seen = entries[-1][0].decode()
            if self._on_cancel is not None:
                self._on_cancel(self._owner)
            return
        followed = self._followed.get(stream_id)
        if followed is None:
            return
        for place, (_, packed) in entries:
            last = entry_cursor(place)
            if last <= followed.position:
                continue
            try:
                followed.add(last, decode_entry(place, packed))
            except Unreadable:
                followed.restart(last)  # whoever reads it is told by the log
        self._waiters.wake(stream_id)

    async def _wake(self) -> None:
        """Write to the wake key whenever that is wanted; what comes meanwhile is one more write."""
        while True:
            await self._wake_wanted.wait()
            self._wake_wanted.clear()
            # If it fails, the next probe does the same.
            with contextlib.suppress(LogUnavailable):
                await self._write_wake(())

    async def _probe(self) -> None:
        """See that what is written arrives, and find what the tail cannot see: streams that are gone."""
        while True:
            await asyncio.sleep(self._probe_seconds)
            self._forget()
            if not self._followed:
                continue
            asked = list(self._followed)
            try:
                tops = await self._write_wake(asked)
            except LogUnavailable:
                continue
            number = self._woken
            self._compare(asked, tops)
            await asyncio.sleep(self._probe_seconds / 2)
            if self._seen < number and self._wire is not None:
                log.warning("tail starves, connecting anew", bucket=self._link.bucket)
                self._wire.abort()

    async def _write_wake(self, stream_ids: Sequence[str]) -> list[int]:
        self._woken += 1
        ttl_ms = int(self._probe_seconds * 1000) + 60_000
        tops: list[int] = await self._link.call(WAKE, self._handle, self._woken, ttl_ms, *stream_ids)
        return tops

    def _compare(self, stream_ids: Sequence[str], tops: Sequence[int]) -> None:
        """Let those look whose stream is gone, or further than what arrived."""
        for stream_id, epoch, seq in zip(stream_ids, tops[::2], tops[1::2], strict=True):
            followed = self._followed.get(stream_id)
            if followed is not None and (epoch < 0 or Cursor(epoch, seq) > followed.position):
                self._waiters.wake(stream_id)

    def _forget(self) -> None:
        horizon = monotonic() - LINGER_SECONDS
        for stream_id, followed in list(self._followed.items()):
            if followed.used < horizon and stream_id not in self._waiters.stream_ids:
                del self._followed[stream_id]

    async def _drop(self) -> None:
        wire, self._wire = self._wire, None
        self._listening = frozenset()
        self._cancels_seen = _BEGINNING  # another server may count from further back
        if wire is not None:
            await wire.close()
