"""Who produces which stream, on LMDB: leases, claims, and who asked for what."""

from collections.abc import Sequence

from app.streams.lmdb.transactions import LmdbTransactions


class LmdbLeases(LmdbTransactions):
    """`Leases`, but for telling owners that they are to cancel something."""

    async def beat(self, owner: str) -> None:
        await self._write(lambda transaction: self._streams.beat(transaction, owner))

    async def expire(self, owner: str) -> None:
        await self._write(lambda transaction: self._streams.expire(transaction, owner))

    async def claim(self, stream_id: str, owner: str, fence: int) -> int | None:
        return await self._write(lambda transaction: self._streams.claim(transaction, stream_id, owner, fence))

    async def release(self, stream_id: str, fence: int) -> None:
        await self._write(lambda transaction: self._streams.release(transaction, stream_id, fence))

    async def orphans(self) -> list[str]:
        return self._read(self._streams.orphans)

    async def cancel_requests(self, owner: str) -> list[str]:
        return self._read(lambda transaction: self._streams.cancel_requests(transaction, owner))

    async def touch_readers(self, stream_ids: Sequence[str]) -> None:
        await self._write(lambda transaction: self._streams.touch_readers(transaction, stream_ids))
