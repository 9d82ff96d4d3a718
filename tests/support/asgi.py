"""A client for raw ASGI applications that a test drives by hand: it leaves, stalls or reads when the test says so."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from starlette.types import Message, Scope

from tests.support.sse import Frame, SSEDecoder, decode


class PeerWire:
    """The connection below ASGI, as the server gives it to the app: what is written there is sent at once."""

    def __init__(self, peer: "Peer") -> None:
        self.aborted = False
        self.ended_with: bytes | None = None
        self.linger_seconds = 0.0
        self._peer = peer

    @property
    def writable(self) -> bool:
        peer = self._peer
        return peer.status > 0 and peer.reading.is_set() and not peer.complete and not peer.left

    def write(self, body: bytes) -> None:
        self._peer.take({"type": "http.response.body", "body": body, "more_body": True})

    def end(self, body: bytes, linger_seconds: float) -> None:
        if self._peer.status:
            self.ended_with = body
            self.linger_seconds = linger_seconds
        else:
            self.abort()

    def abort(self) -> None:
        self.aborted = True


class Peer:
    """One request. `receive` gives the body and then waits until the client leaves; `send` keeps what comes.

    Args:
        gone: the client has left already when the app first looks.
        wire: whether the server is ours, which lets the app below ASGI.
    """

    def __init__(
        self,
        path: str = "/api/v1/generate",
        *,
        headers: dict[str, str] | None = None,
        gone: bool = False,
        wire: bool = True,
    ) -> None:
        self.wire = PeerWire(self)
        self.scope: Scope = {
            "type": "http",
            "method": "POST",
            "path": path,
            "client": ("127.0.0.1", 1),
            "headers": [(name.lower().encode(), value.encode("latin-1")) for name, value in (headers or {}).items()],
            "extensions": {"sluice.wire": self.wire} if wire else {},
        }
        self.messages: list[Message] = []
        self.on_send: Callable[[Message], None] = lambda _: None
        self.reading = asyncio.Event()
        """Cleared, the buffers are full: `send` does not return until it is set again."""
        self.reading.set()
        self.send_takes_seconds = 0.0
        self._left = asyncio.Event()
        self._asked = False
        if gone:
            self.leave()

    def leave(self) -> None:
        """Disconnect."""
        self._left.set()

    async def receive(self) -> Message:
        if not self._asked and not self._left.is_set():
            self._asked = True
            return {"type": "http.request", "body": b"", "more_body": False}
        await self._left.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        self.take(message)
        if self.send_takes_seconds:
            await asyncio.sleep(self.send_takes_seconds)
        await self.reading.wait()

    def take(self, message: Message) -> None:
        """What reaches the client, by whichever way."""
        self.messages.append(message)
        self.on_send(message)

    @property
    def left(self) -> bool:
        """Whether it has disconnected."""
        return self._left.is_set()

    @property
    def status(self) -> int:
        """Of the one answer; 0 while there is none."""
        starts = [message for message in self.messages if message["type"] == "http.response.start"]
        assert len(starts) <= 1, "an answer starts once"
        return int(starts[0]["status"]) if starts else 0

    @property
    def headers(self) -> dict[str, str]:
        """Of the answer, names in lower case."""
        start = next(message for message in self.messages if message["type"] == "http.response.start")
        return {name.decode().lower(): value.decode("latin-1") for name, value in start["headers"]}

    @property
    def bodies(self) -> list[bytes]:
        """What each `send` of the body brought."""
        return [message.get("body", b"") for message in self.messages if message["type"] == "http.response.body"]

    @property
    def body(self) -> bytes:
        return b"".join(self.bodies)

    @property
    def json(self) -> Any:
        """The body of an answer that is JSON."""
        return json.loads(self.body)

    @property
    def frames(self) -> list[Frame]:
        """The events of an answer that is complete."""
        assert self.complete, "the answer has not ended"
        return decode(self.body)

    @property
    def frames_so_far(self) -> list[Frame]:
        return SSEDecoder().feed(self.body)

    @property
    def complete(self) -> bool:
        """Whether the server said that this is all; nothing may follow that."""
        lasts = [index for index, m in enumerate(self.messages) if "body" in m and not m.get("more_body", False)]
        assert lasts in ([], [len(self.messages) - 1]), "something was sent after the end"
        return bool(lasts)

    @property
    def note(self) -> dict[str, Any]:
        """What the access log's line would say."""
        fields: dict[str, Any] = self.scope.get("sluice.note", {})
        return fields


@asynccontextmanager
async def no_tasks_left(within_seconds: float = 1.0) -> AsyncIterator[None]:
    """Everything that the block starts has to be over soon after it."""
    before = asyncio.all_tasks()
    yield
    deadline = asyncio.get_running_loop().time() + within_seconds
    while left := asyncio.all_tasks() - before - {asyncio.current_task()}:
        assert asyncio.get_running_loop().time() < deadline, f"still running: {left}"
        await asyncio.sleep(0.005)


async def until(condition: Callable[[], object], within_seconds: float = 5.0) -> None:
    """Wait for something that comes about by itself."""
    deadline = asyncio.get_running_loop().time() + within_seconds
    while not condition():
        assert asyncio.get_running_loop().time() < deadline, "it did not come about"
        await asyncio.sleep(0.002)
