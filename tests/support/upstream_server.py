"""The scripted upstream's process: HTTP by hand over asyncio's sockets, since every fault must be in reach.

Speaks `/v1/chat/completions`, `/v1/messages` and `/v1/models`, takes scripts at `POST /__script__` and tells at
`GET /__log__` what happened. Ends when its standard input does, so that it never outlives the tests that started it.
"""

import asyncio
import json
import socket
import sys
import time
from typing import Any, Literal

import msgspec

from tests.support.upstream_log import Entry, Log
from tests.support.upstream_script import Script
from tests.support.upstream_writer import Answer, head_bytes

REQUEST_BYTES_MAX = 16 * 1024 * 1024


class State:
    """What all connections share: scripts by model, and the log."""

    def __init__(self) -> None:
        self.scripts: dict[str, list[Script]] = {}
        self.log = Log()

    def next_script(self, model: str) -> Script:
        """The model's scripts in turn; the last one stays. A name that was never scripted behaves well."""
        scripts = self.scripts.get(model) or [Script()]
        return scripts.pop(0) if len(scripts) > 1 else scripts[0]

    def control(self, path: str, request: bytes) -> Any:
        """The tests' side: what `upstream.py` calls."""
        if path == "/__script__":
            order = json.loads(request)
            self.scripts[order["model"]] = msgspec.convert(order["scripts"], list[Script])
        return msgspec.to_builtins(self.log)


class Connection(asyncio.StreamReaderProtocol):
    """Notes the peer's close the moment it happens, also while the answer is being written."""

    def __init__(self, state: State) -> None:
        self.reader = asyncio.StreamReader(limit=REQUEST_BYTES_MAX)
        super().__init__(self.reader, self._accept, asyncio.get_running_loop())
        self.state = state
        self.gone = asyncio.Event()
        self.entry: Entry | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.state.log.accepted += 1
        self.state.log.open += 1
        self.number = self.state.log.accepted
        super().connection_made(transport)

    def eof_received(self) -> bool:
        self._note("fin")
        super().eof_received()
        return True  # the writing side stays ours, so that the log says `fin` and not how we closed

    def connection_lost(self, exc: Exception | None) -> None:
        self.state.log.open -= 1
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
        if method != "POST" or not path.endswith(("/chat/completions", "/messages")):
            return _json(writer, {"error": {"message": "no such route", "type": "invalid_request_error"}}, 404)
        parsed = json.loads(request)
        model = str(parsed.get("model", ""))
        protocol: Literal["openai", "anthropic"] = "anthropic" if path.endswith("/messages") else "openai"
        script = msgspec.structs.replace(self.state.next_script(model), protocol=protocol)
        number = len(self.state.log.requests) + 1
        self.entry = Entry(number, model, self.number, headers, parsed, started=time.monotonic())
        self.state.log.requests.append(self.entry)
        try:
            return await Answer(self.gone, writer, script, self.entry).send(parsed)
        except ConnectionError:
            await self.gone.wait()
            self.entry.outcome = "peer_closed"
            raise
        finally:
            self.entry.finished = self.entry.finished or time.monotonic()


def _json(writer: asyncio.StreamWriter, value: Any, status: int = 200) -> bool:
    data = json.dumps(value).encode()
    writer.write(head_bytes(status, {"Content-Type": "application/json", "Content-Length": str(len(data))}) + data)
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
