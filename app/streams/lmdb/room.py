"""How much room is left in an LMDB store, counted where it matters and estimated in between."""

from time import monotonic

import lmdb

from app.streams.lmdb.tables import Read, Tables, used_bytes
from app.streams.log import Fill
from app.streams.room import CREATE_SHARE_MAX, TOKENS_SHARE_MAX

# A page is about half full after it was split, so what is stored takes twice its size.
STORED_PER_PACKED = 2
# Counting takes 10 us, a fifth of a commit. What other workers write within this time is a small part of the margin.
COUNT_SECONDS = 0.1
# A reader looks at one snapshot for microseconds. One that looks at it for this long was stopped meanwhile.
STANDING_SECONDS = 0.5


class LmdbRoom:
    """One store's room.

    Args:
        bytes_max: the store's size.
    """

    def __init__(self, env: lmdb.Environment, tables: Tables, bytes_max: int) -> None:
        self._env = env
        self._tables = tables
        self._bytes_max = bytes_max
        self._page_bytes = env.stat()["psize"]
        self._left = 0.0
        self._counted_at = float("-inf")
        # The oldest snapshot that a reader looked at, and since when it has been that one.
        self._oldest: tuple[int | None, float] = (None, monotonic())

    def fill(self, transaction: Read) -> Fill:
        """How full it is."""
        return Fill(self._used(transaction), self._bytes_max)

    def has_for_stream(self, transaction: Read) -> bool:
        """Whether another stream may begin."""
        # Never estimated: what others wrote meanwhile would come out of the room that is kept for running streams.
        return self._used(transaction) < CREATE_SHARE_MAX * self._bytes_max

    def take(self, transaction: Read, packed_bytes: int) -> bool:
        """Whether there is room for that much more of tokens; it is taken."""
        wanted = STORED_PER_PACKED * packed_bytes
        if wanted > self._left or monotonic() - self._counted_at > COUNT_SECONDS:
            self._left = TOKENS_SHARE_MAX * self._bytes_max - self._used(transaction)
            self._counted_at = monotonic()
        if wanted > self._left:
            return False
        self._left -= wanted
        return True

    def _used(self, transaction: Read) -> int:
        info = self._env.info()
        written = info["last_pgno"] * self._page_bytes
        # Asked every time: when the store is nearly full, it has to be known already for how long a reader has stood.
        is_pinned = self._is_pinned(info["last_txnid"])
        if is_pinned and written > CREATE_SHARE_MAX * self._bytes_max:
            # Freed pages cannot be used again while somebody may look at them: only what was never written is room.
            return written
        return used_bytes(transaction, self._tables)

    def _is_pinned(self, last_commit: int) -> bool:
        """Whether a reader stands still in an old snapshot."""
        # A line for each: process, thread, and the commit whose snapshot it looks at, or `-`.
        lines = self._env.readers().splitlines()[1:]
        oldest = min((int(commit) for line in lines if (commit := line.split()[-1]).isdigit()), default=None)
        if oldest != self._oldest[0]:
            self._oldest = (oldest, monotonic())
        is_old = oldest is not None and oldest < last_commit
        return is_old and monotonic() - self._oldest[1] > STANDING_SECONDS
