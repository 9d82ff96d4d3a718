"""One HTTP/1.1 request by hand: a client that knows when each event came, whether its answer is whole, and how to go.

Blocking, and nothing is read before it is asked for: as many calls can be open at once as a test wants.
"""

import json
import selectors
import socket
import struct
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from time import monotonic
from typing import Any, Literal, Self
from urllib.parse import urlsplit

from tests.support.sse import Frame, SSEDecoder

READ_BYTES = 65_536
# More than anything a test waits for.
SECONDS_MAX = 20.0

Verdict = Literal["complete", "error", "incomplete"]


class Call:
    """A request that is on its way.

    Args:
        target: a URL's origin, or the path of a Unix socket.
        path: with its query.
        body: sent as JSON, by POST; None makes it a GET.
        address: of the loopback network, whom it comes from.
    """

    def __init__(
        self,
        target: str | Path,
        path: str,
        body: Any = None,
        *,
        headers: Mapping[str, str] | None = None,
        address: str = "127.0.0.1",
    ) -> None:
        self._socket = _connect(target, address)
        self._undecoded = bytearray()
        self._chunk_left: int | None = None
        self._events = SSEDecoder()
        self.status = 0
        self.headers: dict[str, str] = {}
        """By their names in lower case."""
        self.head_at = 0.0
        self.body = bytearray()
        self.times: list[float] = []
        """When each of `frames` was there, by `monotonic`."""
        self.heartbeat_times: list[float] = []
        self.end: Literal["whole", "cut", None] = None
        """How the answer ended, as HTTP has it."""
        self.started = monotonic()
        self._socket.sendall(_request(path, body, headers or {}))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    @property
    def frames(self) -> list[Frame]:
        """The events so far."""
        return self._events.frames

    def head(self, seconds: float = SECONDS_MAX) -> Self:
        """Read until the status and the headers are there."""
        return self._read(lambda: self.status > 0, seconds)

    def until(self, frames: int, seconds: float = SECONDS_MAX) -> Self:
        """Read until so many events are there."""
        return self._read(lambda: len(self.frames) >= frames, seconds)

    def until_heartbeat(self, seconds: float = SECONDS_MAX) -> Self:
        """Read until a heartbeat is there."""
        return self._read(lambda: bool(self.heartbeat_times), seconds)

    def finish(self, seconds: float = SECONDS_MAX) -> Self:
        """Read until the answer ends, in whatever way."""
        return self._read(lambda: self.end is not None, seconds, ends=True)

    def leave(self, how: Literal["fin", "rst"] = "fin") -> float:
        """Close the connection; returns when."""
        if how == "rst":
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        left = monotonic()
        self._socket.close()
        return left

    @property
    def json(self) -> Any:
        """The body of an answer that is one document."""
        return json.loads(self.body)

    @property
    def text(self) -> str:
        """What the tokens so far say, on either surface."""
        return "".join(_text(frame) for frame in self.frames)

    @property
    def terminals(self) -> list[str]:
        """What says that the stream has ended: `done` or `error`, for each time that it is said."""
        return [kind for frame in self.frames if (kind := _terminal(frame))]

    @property
    def verdict(self) -> Verdict:
        """What a careful client makes of it."""
        assert self.end is not None, "not read to its end"
        if self.status >= 400:
            return "error"
        if not self.headers["content-type"].startswith("text/event-stream"):
            return "complete" if self.end == "whole" else "incomplete"
        assert len(self.terminals) <= 1, f"ended more than once: {bytes(self.body)[-500:]!r}"
        if not self.terminals or self._events.pending:
            return "incomplete"
        assert _terminal(self.frames[-1]), "something came behind the end"
        return "complete" if self.terminals == ["done"] else "error"

    def _read(self, enough: Callable[[], bool], seconds: float, ends: bool = False) -> Self:
        deadline = monotonic() + seconds
        while not enough():
            assert self.end is None or ends, f"the answer ended before: {self.status} {bytes(self.body)[-500:]!r}"
            left = deadline - monotonic()
            assert left > 0, f"not within {seconds} s: {self.status} {bytes(self.body)[-500:]!r}"
            self._socket.settimeout(left)
            with suppress(TimeoutError):
                self._receive()
        if self.end is not None:
            self._socket.close()
        return self

    def _receive(self) -> None:
        try:
            data = self._socket.recv(READ_BYTES)
        except ConnectionResetError:
            data = b""
        if data:
            self._take(data, monotonic())
        else:
            self.end = self.end or "cut"

    def _take(self, data: bytes, now: float) -> None:
        self._undecoded += data
        if not self.status and b"\r\n\r\n" in self._undecoded:
            self._take_head(now)
        if self.status and self.end is None:
            self._take_body(now)

    def _take_head(self, now: float) -> None:
        head, _, rest = bytes(self._undecoded).partition(b"\r\n\r\n")
        lines = head.decode("latin-1").split("\r\n")
        self._undecoded[:] = rest
        self.headers = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in lines[1:])}
        self.status = int(lines[0].split(" ")[1])
        self.head_at = now

    def _take_body(self, now: float) -> None:
        if self.headers.get("transfer-encoding") == "chunked":
            while (piece := self._chunk()) is not None:
                self._say(piece, now)
            return
        self._say(bytes(self._undecoded), now)
        self._undecoded.clear()
        if self.status == 204 or len(self.body) >= int(self.headers["content-length"]):
            self.end = "whole"

    def _chunk(self) -> bytes | None:
        """The next chunk that is there as a whole; the last one, which is empty, ends the answer."""
        size, separator, rest = bytes(self._undecoded).partition(b"\r\n")
        length = int(size, 16) if separator else 0
        if self.end or not separator or len(rest) < length + 2:
            return None
        self._undecoded[:] = rest[length + 2 :]
        if not length:
            self.end = "whole"
        return rest[:length]

    def _say(self, data: bytes, now: float) -> None:
        self.body += data
        if self.headers.get("content-type", "").startswith("text/event-stream"):
            heartbeats = len(self._events.comments)
            self.times += [now] * len(self._events.feed(data))
            self.heartbeat_times += [now] * (len(self._events.comments) - heartbeats)


def ask(target: str | Path, path: str, body: Any = None, **headers: str) -> Call:
    """A call that was answered to its end."""
    with Call(target, path, body, headers={name.replace("_", "-"): value for name, value in headers.items()}) as call:
        return call.finish()


def finish_all(calls: Sequence[Call], seconds: float = SECONDS_MAX) -> None:
    """Read several calls to their ends, each byte when it comes."""
    deadline = monotonic() + seconds
    with selectors.DefaultSelector() as selector:
        for call in calls:
            if call.end is None:
                selector.register(call._socket, selectors.EVENT_READ, call)
        while selector.get_map():
            left = deadline - monotonic()
            assert left > 0, f"{len(selector.get_map())} of {len(calls)} calls not finished within {seconds} s"
            for key, _ in selector.select(left):
                key.data._receive()
                if key.data.end is not None:
                    selector.unregister(key.fileobj)
                    key.data.leave()


def listen(calls: Sequence[Call], seconds: float) -> None:
    """Read several calls for so long, each byte when it comes. None of them ends meanwhile."""
    deadline = monotonic() + seconds
    with selectors.DefaultSelector() as selector:
        for call in calls:
            selector.register(call._socket, selectors.EVENT_READ, call)
        while (left := deadline - monotonic()) > 0:
            for key, _ in selector.select(left):
                key.data._receive()
                assert key.data.end is None, bytes(key.data.body)[-500:]


def _connect(target: str | Path, address: str) -> socket.socket:
    if isinstance(target, str):
        url = urlsplit(target)
        return socket.create_connection((url.hostname, url.port), SECONDS_MAX, (address, 0))
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.settimeout(SECONDS_MAX)
        connection.connect(str(target))
    except OSError:
        connection.close()
        raise
    return connection


def _request(path: str, body: Any, headers: Mapping[str, str]) -> bytes:
    payload = b"" if body is None else json.dumps(body).encode()
    fields = {"Host": "localhost", "Connection": "close"}
    if body is not None:
        fields |= {"Content-Type": "application/json", "Content-Length": str(len(payload))}
    lines = [f"{'GET' if body is None else 'POST'} {path} HTTP/1.1"]
    lines += [f"{name}: {value}" for name, value in (fields | dict(headers)).items()]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + payload


def _text(frame: Frame) -> str:
    if frame.data == "[DONE]":
        return ""
    said = frame.json()
    if frame.event == "token":
        return str(said["token"]) if said["type"] == "content" else ""
    return "".join(choice["delta"].get("content") or "" for choice in said.get("choices", ()))


def _terminal(frame: Frame) -> str:
    if frame.event in ("done", "error"):
        return frame.event
    if frame.data == "[DONE]":
        return "done"
    return "error" if frame.event == "message" and "error" in frame.json() else ""
