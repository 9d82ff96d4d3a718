"""HTTP/2 over TLS, by frames: also those that no well-behaved client would send."""

import socket
import struct
import time
from collections.abc import Iterable
from types import TracebackType
from typing import Any, Self, TypeVar

import h2.config
import h2.connection
import h2.events

from tests.support.certificate import Certificate
from tests.support.edge import Edge

WAIT_SECONDS_MAX = 10.0
T = TypeVar("T")


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """As RFC 9113 has it, section 4.1."""
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


class Http2:
    """One connection. Use as a context manager."""

    def __init__(self, edge: Edge, host: str = "localhost") -> None:
        self._port, self._host = edge.tls_port, host
        self._trusted = Certificate.of(edge.prefix).trusted()
        self._trusted.set_alpn_protocols(["h2"])
        # Nothing is checked on its way out: what NGINX makes of it is what is asked.
        config = h2.config.H2Configuration(
            validate_outbound_headers=False, normalize_outbound_headers=False, validate_inbound_headers=True
        )
        self.h2 = h2.connection.H2Connection(config)
        self.events: list[Any] = []
        self.closed = False

    def __enter__(self) -> Self:
        plain = socket.create_connection(("127.0.0.1", self._port), WAIT_SECONDS_MAX)
        self.socket = self._trusted.wrap_socket(plain, server_hostname=self._host)
        assert self.socket.selected_alpn_protocol() == "h2"
        self.h2.initiate_connection()
        self.flush()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.socket.close()

    def flush(self) -> None:
        if data := self.h2.data_to_send():
            self.socket.sendall(data)

    def raw(self, data: bytes) -> None:
        self.flush()
        self.socket.sendall(data)

    def request(
        self, method: str, path: str, body: bytes | None = None, headers: Iterable[tuple[str, str]] = ()
    ) -> int:
        """Send it, and say on which stream."""
        stream: int = self.h2.get_next_available_stream_id()
        head = [(":method", method), (":path", path), (":scheme", "https"), (":authority", self._host), *headers]
        self.h2.send_headers(stream, head, end_stream=body is None)
        if body is not None:
            self.h2.send_data(stream, body, end_stream=True)
        self.flush()
        return stream

    def receive(self) -> None:
        """What is there next; or that the connection has ended."""
        try:
            data = self.socket.recv(65_536)
        except (ConnectionError, OSError) as error:
            if isinstance(error, TimeoutError):
                raise
            data = b""
        if not data:
            self.closed = True
            return
        found = self.h2.receive_data(data)
        for event in found:
            if isinstance(event, h2.events.DataReceived) and event.flow_controlled_length:
                self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        self.events += found
        if not self.closed:
            try:
                self.flush()
            except OSError:
                self.closed = True

    def until(self, kind: type[T], stream: int | None = None) -> T:
        """The first event of that kind, on that stream."""
        deadline = time.monotonic() + WAIT_SECONDS_MAX
        while True:
            for event in self.events:
                if isinstance(event, kind) and (stream is None or getattr(event, "stream_id", None) == stream):
                    return event
            assert not self.closed, f"closed before {kind.__name__}: {self.events}"
            assert time.monotonic() < deadline, f"no {kind.__name__}: {self.events}"
            self.receive()

    def until_closed(self) -> None:
        deadline = time.monotonic() + WAIT_SECONDS_MAX
        while not self.closed:
            assert time.monotonic() < deadline, f"still open: {self.events}"
            self.receive()

    def status(self, stream: int) -> int:
        answer: Any = self.until(h2.events.ResponseReceived, stream)
        return int(dict(answer.headers)[b":status"])

    def body(self, stream: int) -> bytes:
        """Of a stream that has ended."""
        self.until(h2.events.StreamEnded, stream)
        return b"".join(
            event.data
            for event in self.events
            if isinstance(event, h2.events.DataReceived) and event.stream_id == stream
        )
