"""What a worker knows of one stream that it produces or reads."""

import asyncio
from dataclasses import dataclass, field
from time import monotonic

from app.streams.generation import Generation
from app.streams.log import StreamRecord
from app.streams.tail import Tail


@dataclass(eq=False)
class LiveStream:
    """One stream on this worker: its tail, how many read it here, and who fills it.

    Args:
        heard_at: when it said something last, or fell silent, as far as is known here; by the monotonic clock. While it
            is produced here, its generation knows better.
    """

    record: StreamRecord
    tail: Tail
    heard_at: float = field(default_factory=monotonic)
    readers: int = 0
    orphaned: bool = False  # nobody produced it when it was last looked at
    generation: Generation | None = None
    follower: asyncio.Task[None] | None = None
    unread: asyncio.Task[None] | None = None

    @property
    def stream_id(self) -> str:
        return self.record.stream_id
