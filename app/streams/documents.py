"""Small things that are kept beside the streams, in the same store: each has a version, and a time to live.

A conversation is one. Several workers may write one at a time: whoever read an older version is told so and changes
nothing. Who wants to hear of changes asks for versions, at intervals: a lost message cannot be missed so.
"""

from collections.abc import Sequence
from typing import NamedTuple, Protocol


class Document(NamedTuple):
    """What is kept under a key."""

    version: int
    body: bytes


class Documents(Protocol):
    """Every method raises `LogUnavailable` when the store does not answer in time."""

    async def get_document(self, key: str) -> Document | None:
        """What is kept; None if there is nothing, or no longer."""
        ...

    async def put_document(self, key: str, body: bytes, version: int, ttl_seconds: float) -> int | None:
        """Keep `body` for `ttl_seconds` in the place of `version`, where 0 stands for nothing.

        The new version, which rises, also past a document that is gone; None if there is another one than `version`.

        Raises:
            LogFull: the store has no room.
        """
        ...

    async def drop_document(self, key: str) -> None:
        """Forget it."""
        ...

    async def document_versions(self, keys: Sequence[str]) -> list[int]:
        """The version of each; 0 for what there is not."""
        ...


# Versions are microseconds of the store's clock, unless that stood still: one that is made anew is then never taken for
# the one that it followed. They stay below 2^53, up to which Lua counts.
def next_version(version: int, clock_us: int) -> int:
    """The version that follows."""
    return max(version + 1, clock_us)
