"""What a connection waits for, with one timer for all of it: news, a heartbeat that is due, a reader that is stuck.

A timer a token would cost more than the token: this one looks at two timestamps when it fires, and re-arms itself.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from starlette.exceptions import HTTPException

from app.scope import Wire

Receive = Callable[[], Awaitable[Any]]
Send = Callable[[dict[str, Any]], Awaitable[None]]
_GONE = {"type": "http.disconnect"}
Result = TypeVar("Result")


class ReaderStuck(Exception):
    """The reader took no byte for `send_seconds`."""


class ClientGone(Exception):
    """The client left before it had an answer."""


class Connection:
    """One client's connection, seen from the task that serves it.

    Args:
        heartbeat_seconds: `heartbeat_due` becomes true after this long without a byte sent.
        send_seconds: `send` raises `ReaderStuck` once it has waited this long.
        wire: the connection below ASGI, where the server has one.
    """

    def __init__(
        self, receive: Receive, send: Send, heartbeat_seconds: float, send_seconds: float, wire: Wire | None = None
    ) -> None:
        self._wire = wire
        self._receive = receive
        self._send = send
        self._heartbeat_seconds = heartbeat_seconds
        self._send_seconds = send_seconds
        self._loop = asyncio.get_running_loop()
        self._task: asyncio.Task[Any] | None = asyncio.current_task()
        self._waiter: asyncio.Future[None] | None = None
        self._sending_since: float | None = None
        self._stuck = False
        self._endings: list[asyncio.TimerHandle] = []
        self._interruptible = False
        self._last_sent = self._loop.time()
        self._timer = self._loop.call_later(min(heartbeat_seconds, send_seconds), self._tick)
        self._listener: asyncio.Task[None] | None = asyncio.create_task(self._listen())
        self.gone = False
        self.leaving: str | None = None
        self.key = b""
        """The hash of the API key that opened it, if one did."""
        self._failure: Exception | None = None
        self.heartbeat_due = False

    def close(self) -> None:
        """Stop the timer and the listener; the connection itself is the server's."""
        self._timer.cancel()
        for ending in self._endings:
            ending.cancel()
        if self._listener is not None:
            self._listener.cancel()
        # A cancelled task keeps the frame in which it was, and so this object: a circle that waits for the collector.
        self._listener = self._waiter = None

    def wake(self) -> None:
        """Let `wait` return."""
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    @property
    def open_to_push(self) -> bool:
        """Whether the task that serves the connection rests in `wait`, and `push` would do."""
        waiter, wire = self._waiter, self._wire
        return waiter is not None and not waiter.done() and wire is not None and wire.writable

    def push(self, body: bytes) -> None:
        """Send a piece of a body that has begun, past the task that rests, if the connection is `open_to_push`."""
        assert self._wire is not None
        if not body:
            return  # nothing was sent, and a heartbeat is due as before
        self._wire.write(body)
        self._last_sent = self._loop.time()

    def fail(self, error: Exception) -> None:
        """Have `wait` raise, in the task that serves the connection."""
        self._failure = error
        self.wake()

    def leave(self, reason: str) -> None:
        """Have the connection ended, and the client told why."""
        self.leaving = self.leaving or reason
        self.wake()

    def leave_after(self, seconds: float, reason: str) -> None:
        """Have the connection ended after `seconds`, unless something else ends it first."""
        self._endings.append(self._loop.call_later(seconds, self.leave, reason))

    async def wait(self) -> None:
        """Until `wake`, the client's leaving, or the next heartbeat."""
        if self.gone or self.heartbeat_due or self.leaving:
            return
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None
        if self._failure is not None:
            raise self._failure

    async def unless_gone(self, wait: Coroutine[Any, Any, Result]) -> Result:
        """What is waited for, unless the client leaves meanwhile.

        Raises:
            ClientGone: it did.
        """
        self._interruptible = True
        try:
            if self.gone:
                self._interrupt()
            return await wait
        except asyncio.CancelledError:
            if self.gone and self._task is not None and self._task.uncancel() == 0:
                raise ClientGone from None
            raise
        finally:
            self._interruptible = False

    def _interrupt(self) -> None:
        if self._interruptible and self._task is not None:
            self._task.cancel()

    async def send(self, message: dict[str, Any]) -> None:
        """Send one ASGI message.

        Raises:
            ReaderStuck: the reader's buffers stayed full for `send_seconds`.
        """
        await self._bounded(self._send(message))
        if message["type"] == "http.response.body":
            self.heartbeat_due = False

    async def _bounded(self, sending: Awaitable[None]) -> None:
        self._last_sent = self._sending_since = self._loop.time()
        try:
            await sending
        except asyncio.CancelledError:
            if self._stuck and self._task is not None and self._task.uncancel() == 0:
                raise ReaderStuck from None
            raise
        finally:
            self._sending_since = None

    def _tick(self) -> None:
        now = self._loop.time()
        if self._sending_since is not None:
            due = self._sending_since + self._send_seconds
            if due <= now and self._task is not None:
                self._stuck = True
                self._task.cancel()
                return
        else:
            due = self._last_sent + self._heartbeat_seconds
            if due <= now:
                self.heartbeat_due = True
                self.wake()
                due = now + self._heartbeat_seconds
        # A send may begin at any time, so look at least as often as the shorter of the two bounds.
        soonest = now + min(self._heartbeat_seconds, self._send_seconds)
        self._timer = self._loop.call_at(min(due, soonest), self._tick)

    async def _listen(self) -> None:
        while True:
            try:
                message = await self._receive()
            except HTTPException:
                message = _GONE  # a body that nobody reads, and too much of it
            if message["type"] == "http.disconnect":
                self.gone = True
                self.wake()
                self._interrupt()
                return
