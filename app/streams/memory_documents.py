"""Documents in this process's memory; they share the bound of the streams beside them."""

from collections.abc import Sequence
from time import monotonic, time
from typing import NamedTuple

from app.errors import LogFull
from app.streams.documents import Document, next_version
from app.streams.room import CREATE_SHARE_MAX

# A tuple, its key and its place in a dict.
DOCUMENT_OVERHEAD_BYTES = 400


class _Kept(NamedTuple):
    document: Document
    expires_at: float

    @property
    def bytes(self) -> int:
        return len(self.document.body) + DOCUMENT_OVERHEAD_BYTES


class MemoryDocuments:
    """`Documents`, of one process.

    Args:
        bytes_max: most bytes of the whole store.
    """

    def __init__(self, bytes_max: int) -> None:
        self._bytes = 0
        self._bytes_max = bytes_max
        self._documents: dict[str, _Kept] = {}

    async def get_document(self, key: str) -> Document | None:
        return self._document(key)

    async def put_document(self, key: str, body: bytes, version: int, ttl_seconds: float) -> int | None:
        known = self._document(key)
        if version != (0 if known is None else known.version):
            return None
        kept = _Kept(Document(next_version(version, int(time() * 1e6)), body), monotonic() + ttl_seconds)
        freed = 0 if known is None else self._documents[key].bytes
        if self._bytes - freed + kept.bytes > CREATE_SHARE_MAX * self._bytes_max:
            raise LogFull("The server's stream log is full.", retry_after_seconds=5)
        self._bytes += kept.bytes - freed
        self._documents[key] = kept
        return kept.document.version

    async def drop_document(self, key: str) -> None:
        if kept := self._documents.pop(key, None):
            self._bytes -= kept.bytes

    async def document_versions(self, keys: Sequence[str]) -> list[int]:
        return [0 if (found := self._document(key)) is None else found.version for key in keys]

    async def _reap_documents(self) -> None:
        now = monotonic()
        for key in [key for key, kept in self._documents.items() if kept.expires_at <= now]:
            await self.drop_document(key)

    def _document(self, key: str) -> Document | None:
        kept = self._documents.get(key)
        return None if kept is None or kept.expires_at <= monotonic() else kept.document
