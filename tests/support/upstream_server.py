"""The scripted upstream's process: HTTP by hand over asyncio's sockets, since every fault must be in reach.

Speaks `/v1/chat/completions` and `/v1/models`, takes scripts at `POST /__script__` and tells at `GET /__log__` what
happened: each generation, and when, how and at which token its peer closed. Ends when its standard input does, so that
it never outlives the tests that started it.
"""

import asyncio
import json
import socket
import struct
import sys
import time
from itertools import takewhile
from typing import Any

import msgspec

from tests.support.upstream_script import Script
from tests.support.upstream_steps import Die, End, Send, Wait, body, head

REASONS = {200: "OK", 401: "Unauthorized", 404: "Not Found", 429: "Too Many Requests", 500: "Internal Server Error"}
REQUEST_BYTES_MAX = 16 * 1024 * 1024


class Entry(msgspec.Struct):
    """One generation. Times are CLOCK_MONOTONIC, which all processes of the machine share."""

    generation: int
    model: str
    connection: int
    headers: dict[str, str]
    body: dict[str, Any]
    started: float
    tokens: int = 0
    """Tokens written so far; once the peer has closed, those it could have seen."""
    finished: float | None = None
    outcome: str | None = None
    """`complete`, `died` as scripted, or `peer_closed`."""
    closed: str | None = None
    """How the peer closed before the answer was finished: `fin` or `rst`."""
    closed_at: float | None = None


class State:
    """What all connections share: scripts by model, and the log."""

    def __init__(self) -> None:
        self.scripts: dict[str, list[Script]] = {}
        self.log: list[Entry] = []
        self.accepted = 0
        self.open = 0

    def next_script(self, model: str) -> Script:
        """The model's scripts in turn; the last one stays. A name that was never scripted behaves well."""
        scripts = self.scripts.get(model) or [Script()]
        return scripts.pop(0) if len(scripts) > 1 else scripts[0]

    def control(self, path: str, request: bytes) -> Any:
        """The tests' side: what `upstream.py` calls."""
        if path == "/__script__":
            order = json.loads(request)
            self.scripts[order["model"]] = msgspec.convert(order["scripts"], list[Script])
        return {"accepted": self.accepted, "open": self.open, "requests": msgspec.to_builtins(self.log)}


class Connection(asyncio.StreamReaderProtocol):
    """Notes the peer's close the moment it happens, also while the answer is being written."""

    def __init__(self, state: State) -> None:
        self.reader = asyncio.StreamReader(limit=REQUEST_BYTES_MAX)
        super().__init__(self.reader, self._accept, asyncio.get_running_loop())
        self.state = state
        self.gone = asyncio.Event()
        self.entry: Entry | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.state.accepted += 1
        self.state.open += 1
        self.number = self.state.accepted
        super().connection_made(transport)

    def eof_received(self) -> bool:
        self._note("fin")
        super().eof_received()
        return True  # the writing side stays ours, so that the log says `fin` and not how we closed

    def connection_lost(self, exc: Exception | None) -> None:
        self.state.open -= 1
        self._note("rst" if exc else "fin")
        super().connection_lost(exc)

    def _note(self, how: str) -> None:
        self.gone.set()
        entry = self.entry
        if entry is not None and entry.closed is None and entry.finished is None:
            entry.closed, entry.closed_at = how, time.monotonic()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            while await self._exchange(reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """One request and its answer; whether the connection is kept."""
        lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        method, path, _ = lines[0].split(" ", 2)
        headers = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in lines[1:] if line)}
        request = await reader.readexactly(int(headers.get("content-length", 0)))
        if path.startswith("/__"):
            return _json(writer, self.state.control(path, request))
        if path.endswith("/models"):
            return _json(writer, {"object": "list", "data": [{"id": m, "object": "model"} for m in self.state.scripts]})
        if method != "POST" or not path.endswith("/chat/completions"):
            return _json(writer, {"error": {"message": "no such route", "type": "invalid_request_error"}}, 404)
        parsed = json.loads(request)
        model = str(parsed.get("model", ""))
        script = self.state.next_script(model)
        number = len(self.state.log) + 1
        self.entry = Entry(number, model, self.number, headers, parsed, started=time.monotonic())
        self.state.log.append(self.entry)
        try:
            return await Answer(self, writer, script, self.entry).send(parsed)
        except ConnectionError:
            await self.gone.wait()
            self.entry.outcome = "peer_closed"
            raise
        finally:
            self.entry.finished = self.entry.finished or time.monotonic()


class Answer:
    """Carries out a script's steps on one connection."""

    def __init__(self, peer: Connection, writer: asyncio.StreamWriter, script: Script, entry: Entry) -> None:
        self.peer = peer
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
        steps = body(self.script, request)
        status, headers = head(self.script)
        if self.framing == "content_length":
            whole = takewhile(lambda step: not isinstance(step, End), body(self.script, request))
            headers["Content-Length"] = str(sum(len(step.data) for step in whole if isinstance(step, Send)))
        elif self.framing == "chunked":
            headers["Transfer-Encoding"] = "chunked"
        await self._flush(_head(status, headers))
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
        if self.peer.gone.is_set():
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
                await asyncio.wait_for(self.peer.gone.wait(), step if deadline is None else min(step, left))
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


def _head(status: int, headers: dict[str, str]) -> bytes:
    lines = [f"HTTP/1.1 {status} {REASONS.get(status, 'Scripted')}", *(f"{k}: {v}" for k, v in headers.items())]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def _json(writer: asyncio.StreamWriter, value: Any, status: int = 200) -> bool:
    data = json.dumps(value).encode()
    writer.write(_head(status, {"Content-Type": "application/json", "Content-Length": str(len(data))}) + data)
    return True


async def serve() -> None:
    """Listens on a free port of the loopback, prints it, and runs until standard input ends."""
    state = State()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(state), "127.0.0.1", 0, backlog=4096)
    print(server.sockets[0].getsockname()[1], flush=True)
    ended = asyncio.Event()
    loop.add_reader(sys.stdin.fileno(), ended.set)  # nobody writes to it: readable means that it has ended
    await ended.wait()


if __name__ == "__main__":
    asyncio.run(serve())
