"""A cursor in a stream: what lies behind it comes from the log, what is new from the tail, and nobody sees the seam."""

import asyncio
from collections.abc import Sequence

from app.errors import CursorGone, LogUnavailable
from app.events import ENDS
from app.streams.log import Cursor, StreamLog, StreamRecord, check_contiguous
from app.streams.tail import Entry, Tail, Wake

# One page of history; between two pages other streams get their turn.
PAGE_EVENTS_MAX = 500


class Reader:
    """One reader of one stream, on any connection; made by `Streams.attach` and given back to `Streams.detach`."""

    def __init__(self, record: StreamRecord, tail: Tail, log: StreamLog, after: Cursor) -> None:
        self.record = record
        self.cursor = after
        self.ended = False
        self.past_end = tail.ended and after == tail.last
        self._tail = tail
        self._log = log
        self._position = tail.position(after)
        self._wake: Wake | None = None
        self._beyond_cursor = False

    @property
    def ahead(self) -> int | None:
        """How many generations are before this one in the queue, which it is in on this worker."""
        ahead = self._tail.ahead
        return None if ahead is None else ahead()

    def follow(self, wake: Wake) -> None:
        """Call `wake` when there is more to take, until `close`; see `Tail.follow`."""
        self._wake = wake
        self._tail.follow(wake)

    def close(self) -> None:
        if self._wake is not None:
            self._tail.unfollow(self._wake)
            self._wake = None

    def passes(self, entries: Sequence[Entry], first: int) -> bool:
        """Go past what the tail has just got, if the reader stood right before it and it does not end the stream."""
        if self._position != first or not entries or self._tail.ended:
            return False
        self._position = first + len(entries)
        cursor = entries[-1][0]
        if cursor is None:
            self._beyond_cursor = True
        else:
            self.cursor = cursor
            self._beyond_cursor = False
        return True

    async def take(self) -> Sequence[Entry]:
        """What there is behind the cursor, which moves past it; empty when that is nothing yet.

        Raises:
            CursorGone: neither the tail nor the log holds it any more.
            LogUnavailable: it is in the log only, which does not answer.
        """
        entries = self.take_now()
        if entries is not None:
            return entries
        page = await self._page()
        if not page and self.cursor < self._tail.last:
            # The tail has moved on while that answer was on its way; what it passed is in the log by now.
            page = await self._page()
        return self._passed(page) if page else self._at_the_logs_end()

    def take_now(self) -> Sequence[Entry] | None:
        """As `take`, as far as that needs no log; None where it does.

        Raises:
            CursorGone
            LogUnavailable: what this reader had without ids comes again; whoever reads it is to come back for it.
        """
        tail = self._tail
        if self._position is None or self._position < tail.start:
            if self._beyond_cursor and tail.forgotten:
                raise LogUnavailable("What came without an id comes again.", retry_after_seconds=1)
            if self._beyond_cursor:
                # It fell behind while the log was away: the cursor would bring again what it had without ids.
                raise CursorGone("The stream's log did not keep what follows.")
            self._position = tail.position(self.cursor)
            if self._position is None:
                return None
        new = tail.entries[self._position - tail.start :]
        if not new and tail.broken is not None:
            raise tail.broken
        self._position += len(new)
        return self._passed(new)

    async def _page(self) -> Sequence[Entry]:
        # A log of this machine answers without waiting: a long history would hold the loop until its end.
        await asyncio.sleep(0)
        try:
            page = await self._log.read(self.record.stream_id, self.cursor, PAGE_EVENTS_MAX)
        except CursorGone:
            if self.cursor > self._tail.last and not self._tail.ended:
                return ()  # a log that lost what this reader had: what follows it, or a reset, comes to the tail
            raise
        check_contiguous(self.cursor, page)
        return page

    def _at_the_logs_end(self) -> Sequence[Entry]:
        tail = self._tail
        if tail.position(self.cursor) is not None:
            # What the log did not have yet when it was asked has come since.
            return self.take_now() or ()
        if self.cursor <= tail.last:
            raise CursorGone("The stream's log no longer holds what follows this id.")
        # Its pages brought the reader further than the tail, whose events another worker writes: they come there too.
        if tail.broken is not None:
            raise tail.broken
        return ()

    def _passed(self, entries: Sequence[Entry]) -> Sequence[Entry]:
        if entries:
            cursor, event = entries[-1]
            self.cursor = cursor or self.cursor
            self._beyond_cursor = cursor is None
            self.ended = isinstance(event, ENDS)
        return entries
