"""What a worker knows of one stream that it produces or reads."""

import asyncio
from dataclasses import dataclass

from app.streams.generation import Generation
from app.streams.log import StreamRecord
from app.streams.tail import Tail


@dataclass(eq=False)
class LiveStream:
    """One stream on this worker: its tail, how many read it here, and who fills it."""

    record: StreamRecord
    tail: Tail
    readers: int = 0
    orphaned: bool = False  # nobody produced it when it was last looked at
    generation: Generation | None = None
    follower: asyncio.Task[None] | None = None
    unread: asyncio.Task[None] | None = None

    @property
    def stream_id(self) -> str:
        return self.record.stream_id
