"""A WebSocket client by hand, for frames that no library would send."""

import json
import os
import socket
import struct
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

SECONDS_MAX = 20.0
TEXT, BINARY, CONTINUATION, CLOSE, PING, PONG = 1, 2, 0, 8, 9, 10


def frame(opcode: int, payload: bytes = b"", *, final: bool = True, reserved: int = 0, masked: bool = True) -> bytes:
    """One frame, right or wrong."""
    first = (0x80 if final else 0) | reserved << 4 | opcode
    length, mask = len(payload), 0x80 if masked else 0
    if length < 126:
        head = struct.pack(">BB", first, mask | length)
    elif length < 65_536:
        head = struct.pack(">BBH", first, mask | 126, length)
    else:
        head = struct.pack(">BBQ", first, mask | 127, length)
    if not masked:
        return head + payload
    key = os.urandom(4)
    return head + key + bytes(byte ^ key[at % 4] for at, byte in enumerate(payload))


def close(code: int, reason: bytes = b"") -> bytes:
    """The payload of a close frame."""
    return struct.pack(">H", code) + reason


class RawSocket:
    """An open socket.

    Args:
        target: a URL's origin, or the path of a worker's Unix socket.
        headers: are added to the handshake's.
    """

    def __init__(self, target: str | Path, path: str, **headers: str) -> None:
        if isinstance(target, Path):
            host = "localhost"
            self._connection = socket.socket(socket.AF_UNIX)
            self._connection.settimeout(SECONDS_MAX)
            self._connection.connect(str(target))
        else:
            parts = urlsplit(target)
            host = parts.netloc
            self._connection = socket.create_connection((parts.hostname, parts.port), SECONDS_MAX)
        self._buffer = bytearray()
        lines = [
            f"GET {path} HTTP/1.1",
            f"Host: {host}",
            "Upgrade: websocket",
            "Connection: Upgrade",
            "Sec-WebSocket-Version: 13",
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
            *(f"{name.replace('_', '-')}: {value}" for name, value in headers.items()),
        ]
        self._connection.sendall("\r\n".join([*lines, "", ""]).encode())
        while b"\r\n\r\n" not in self._buffer:
            data = self._connection.recv(65_536)
            assert data, bytes(self._buffer)
            self._buffer += data
        head, _, rest = bytes(self._buffer).partition(b"\r\n\r\n")
        self._buffer[:] = rest
        self.status = int(head.split()[1])
        self.head = head.decode("latin-1").lower()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.close()

    def send(self, *frames: bytes) -> Self:
        self._connection.sendall(b"".join(frames))
        return self

    def say(self, **message: Any) -> Self:
        """A whole message."""
        return self.send(frame(TEXT, json.dumps(message).encode()))

    def receive(self) -> tuple[int, bytes]:
        """The next frame: its opcode and payload. (CLOSE, nothing) stands for an end without one."""
        try:
            first, second = self._read(2)
            length = second & 0x7F
            assert not second & 0x80, "a server masks nothing"
            assert not first & 0x70, "a reserved bit"
            if length > 125:
                length = int.from_bytes(self._read(2 if length == 126 else 8))
            return first & 0x0F, self._read(length)
        except (EOFError, ConnectionError):
            return CLOSE, b""

    def message(self) -> Any:
        """The next message, past pings."""
        while True:
            opcode, payload = self.receive()
            if opcode == PING:
                self.send(frame(PONG, payload))
                continue
            assert opcode == TEXT, (opcode, payload)
            return json.loads(payload)

    def close_code(self) -> int:
        """With what the server closes; 0 without a frame."""
        while True:
            opcode, payload = self.receive()
            if opcode == CLOSE:
                return int.from_bytes(payload[:2])

    def _read(self, count: int) -> bytes:
        while len(self._buffer) < count:
            data = self._connection.recv(65_536)
            if not data:
                raise EOFError
            self._buffer += data
        taken = bytes(self._buffer[:count])
        del self._buffer[:count]
        return taken
