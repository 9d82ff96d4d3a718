"""A client of Sluice's WebSockets on the `websockets` library: it keeps ids, and comes back as PROTOCOL.md says."""

import json
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from websockets.exceptions import ConnectionClosed, InvalidHandshake
from websockets.sync.client import ClientConnection, connect, unix_connect

SECONDS_MAX = 20.0


class SocketClient:
    """One socket.

    Args:
        target: a URL's origin, or the path of a worker's Unix socket.
    """

    def __init__(self, target: str | Path, path: str, headers: Mapping[str, str] | None = None) -> None:
        options: dict[str, Any] = {"proxy": None, "additional_headers": headers, "open_timeout": SECONDS_MAX}
        self._stack = ExitStack()
        if isinstance(target, Path):
            opened: Any = unix_connect(str(target), f"ws://localhost{path}", **options)
        else:
            opened = connect(f"ws{target.removeprefix('http')}{path}", **options)
        self._connection: ClientConnection = self._stack.enter_context(opened)
        self.messages: list[dict[str, Any]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def say(self, **message: Any) -> Self:
        self._connection.send(json.dumps(message))
        return self

    def hear(self, seconds: float = SECONDS_MAX) -> dict[str, Any]:
        """The next message that is no heartbeat; it is kept."""
        while True:
            found: dict[str, Any] = json.loads(self._connection.recv(seconds))
            if found["type"] != "ping":
                self.messages.append(found)
                return found

    def until(self, kind: str, count: int = 1) -> Self:
        """Hear so many more of that type."""
        while count:
            count -= self.hear()["type"] == kind
        return self

    def close_code(self) -> int | None:
        """With what the server closes; None where it says nothing."""
        try:
            while True:
                self.hear()
        except ConnectionClosed as closed:
            return closed.rcvd.code if closed.rcvd else None

    def drop(self) -> None:
        """Go without a word."""
        self._connection.socket.close()

    @property
    def last_id(self) -> str | None:
        return next((message["id"] for message in reversed(self.messages) if "id" in message), None)

    @property
    def text(self) -> str:
        return text_of(self.messages)


def text_of(messages: list[dict[str, Any]]) -> str:
    """What the tokens say."""
    return "".join(message["token"] for message in messages if message["type"] == "token")


Enough = Callable[[list[dict[str, Any]], list[str]], bool]


def read_to_end(
    target: str, path: str, enough: Enough = lambda _messages, _reasons: False, **wanted: Any
) -> tuple[list[dict[str, Any]], list[str]]:
    """Everything from the question to the end, over as many sockets as it takes; and why each but the last ended.

    Args:
        enough: asked for an early end.
    """
    messages: list[dict[str, Any]] = []
    reasons: list[str] = []
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        last = next((message["id"] for message in reversed(messages) if "id" in message), None)
        try:
            with SocketClient(target, path) as client:
                stream_id = next((message["stream_id"] for message in messages if "stream_id" in message), None)
                if stream_id is None:
                    client.say(type="message", idempotency_key=path, **wanted)
                else:
                    client.say(type="resume", **({"last_event_id": last} if last else {"stream_id": stream_id}))
                while True:
                    heard = client.hear()
                    if heard["type"] == "reconnect":
                        reasons.append(heard["reason"])
                        assert client.close_code() == 1012
                        time.sleep(heard["retry_ms"] / 1000)
                        break
                    messages.append(heard)
                    if heard["type"] in ("end", "error") or enough(messages, reasons):
                        return messages, reasons
        except (ConnectionClosed, InvalidHandshake, OSError) as error:
            reasons.append(type(error).__name__)
            time.sleep(0.2)
    raise AssertionError(f"no end: {reasons} {messages[-3:]}")
