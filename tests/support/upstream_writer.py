"""Writes one answer as its script says: framing, splits, waits, and the ways to die."""

import asyncio
import socket
import struct
import time
from itertools import takewhile
from typing import Any

from tests.support import upstream_messages, upstream_steps
from tests.support.upstream_log import Entry
from tests.support.upstream_script import Script
from tests.support.upstream_steps import Die, End, Send, Wait, head

REASONS = {
    200: "OK",
    401: "Unauthorized",
    404: "Not Found",
    429: "Too Many Requests",
    500: "Internal Server Error",
    529: "Overloaded",
}


class Answer:
    """Carries out a script's steps on one connection."""

    def __init__(self, gone: asyncio.Event, writer: asyncio.StreamWriter, script: Script, entry: Entry) -> None:
        self.gone = gone
        self.writer = writer
        self.script = script
        self.entry = entry
        self.framing = script.framing

    async def send(self, request: dict[str, Any]) -> bool:
        """The whole answer; whether the connection is kept."""
        await self._wait(self.script.headers_delay_seconds)
        if self.script.response_hex is not None:
            self.writer.write(bytes.fromhex(self.script.response_hex))
            return await self._die()
        body = (upstream_messages if self.script.protocol == "anthropic" else upstream_steps).body
        steps = body(self.script, request)
        status, headers = head(self.script)
        if self.framing == "content_length":
            whole = takewhile(lambda step: not isinstance(step, End), body(self.script, request))
            headers["Content-Length"] = str(sum(len(step.data) for step in whole if isinstance(step, Send)))
        elif self.framing == "chunked":
            headers["Transfer-Encoding"] = "chunked"
        await self._flush(head_bytes(status, headers))
        for step in steps:
            match step:
                case Send(data, token):
                    await self._write(data)
                    self.entry.tokens += token
                case Wait(seconds):
                    await self._wait(seconds, self.script.trickle)
                case Die():
                    return await self._die()
                case End():
                    break
        await self._write(b"")
        self.entry.outcome = "complete"
        return self.framing != "until_close"

    async def _write(self, data: bytes) -> None:
        """Body bytes, split and framed as the script says; none ends the body."""
        size = self.script.split_at or len(data) or 1
        for at in range(0, len(data), size):
            piece = data[at : at + size]
            await self._flush(b"%x\r\n%b\r\n" % (len(piece), piece) if self.framing == "chunked" else piece)
        if not data and self.framing == "chunked":
            await self._flush(b"0\r\n\r\n")

    async def _flush(self, data: bytes) -> None:
        if self.gone.is_set():
            raise ConnectionResetError
        self.writer.write(data)
        await self.writer.drain()
        await asyncio.sleep(0)  # the loop must get to read the peer's close between two writes

    async def _wait(self, seconds: float | None, trickle: str = "") -> None:
        """Time passes, and ends early when the peer goes: a real upstream stops its work then."""
        deadline = None if seconds is None else time.monotonic() + seconds
        while deadline is None or (left := deadline - time.monotonic()) > 0:
            step = self.script.trickle_seconds if trickle else 3600
            try:
                await asyncio.wait_for(self.gone.wait(), step if deadline is None else min(step, left))
            except TimeoutError:
                if trickle and (deadline is None or time.monotonic() < deadline):
                    await self._write(trickle.encode())
            else:
                raise ConnectionResetError

    async def _die(self) -> bool:
        if self.script.how == "fin" and self.script.response_hex is None:
            await self._write(b"")
        self.entry.outcome = "died"
        self.entry.finished = time.monotonic()
        await self.writer.drain()
        if self.script.how == "rst":
            await asyncio.sleep(0.05)  # what was written must have arrived: a reset discards the peer's unread bytes
            linger = struct.pack("ii", 1, 0)
            self.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            self.writer.transport.abort()
        return False


def head_bytes(status: int, headers: dict[str, str]) -> bytes:
    lines = [f"HTTP/1.1 {status} {REASONS.get(status, 'Scripted')}", *(f"{k}: {v}" for k, v in headers.items())]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")
