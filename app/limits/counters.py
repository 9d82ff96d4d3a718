"""Where accounts are kept, so that all workers count together: one boundary, three stores.

`memory_counters` for one process and as the fallback, `lmdb_counters` for the workers of a machine, `redis_counters`
for those of many. The same store keeps tickets, which are as short-lived and as shared.
"""

from collections.abc import Sequence
from typing import Protocol

from app.limits.account import Ask, Return, Taken


class Counters(Protocol):
    """Every method raises `LogUnavailable` when the store does not answer in time."""

    async def take(self, ask: Ask) -> Taken:
        """Look at all limits of a request in one step, and take all of it or nothing; nothing where `ask.look`."""
        ...

    async def give_back(self, returns: Sequence[Return]) -> None:
        """Correct what was taken, and free slots."""
        ...

    async def renew(self, slots: Sequence[tuple[str, str]], slot_ms: int) -> None:
        """Hold these slots, each named by its account's key and its own name, for so long from now."""
        ...

    async def keep_ticket(self, digest: str, value: bytes, seconds: float) -> None:
        """Remember a ticket for `seconds` from now, in place of what was kept of it."""
        ...

    async def find_ticket(self, digest: str) -> bytes | None:
        """A ticket's value; None if there is no such ticket, or no longer."""
        ...

    async def tidy(self) -> None:
        """Forget what no longer counts, a bounded amount at a time."""
        ...

    async def aclose(self) -> None: ...
