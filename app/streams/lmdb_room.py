"""How much room is left in an LMDB store, counted where it matters and estimated in between."""

from time import monotonic

from app.streams.lmdb_tables import Read, Tables, used_bytes
from app.streams.room import CREATE_SHARE_MAX, TOKENS_SHARE_MAX

# A page is about half full after it was split, so what is stored takes twice its size.
STORED_PER_PACKED = 2
# Counting takes 5 us, a tenth of a commit. What other workers write within this time is a small part of the margin.
COUNT_SECONDS = 0.1


class LmdbRoom:
    """One store's room.

    Args:
        bytes_max: the store's size.
    """

    def __init__(self, tables: Tables, bytes_max: int) -> None:
        self._tables = tables
        self._bytes_max = bytes_max
        self._left = 0.0
        self._counted_at = float("-inf")

    def has_for_stream(self, transaction: Read) -> bool:
        """Whether another stream may begin."""
        return used_bytes(transaction, self._tables) < CREATE_SHARE_MAX * self._bytes_max

    def take(self, transaction: Read, packed_bytes: int) -> bool:
        """Whether there is room for that much more of tokens; it is taken."""
        wanted = STORED_PER_PACKED * packed_bytes
        if wanted > self._left or monotonic() - self._counted_at > COUNT_SECONDS:
            self._left = TOKENS_SHARE_MAX * self._bytes_max - used_bytes(transaction, self._tables)
            self._counted_at = monotonic()
        if wanted > self._left:
            return False
        self._left -= wanted
        return True
