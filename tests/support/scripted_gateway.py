"""A gateway that speaks the native protocol and treats its clients as badly as it may, one connection after the other.

For clients that are told to come back, are cut, refused and left in silence, in an order that no real server keeps.
"""

import asyncio
import contextlib
import json
import threading
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from time import monotonic
from typing import Any

from aiohttp import WSMsgType, web

from tests.support.chain import free_port

START_SECONDS_MAX = 10.0
LONG_SECONDS = 600.0
# Longer than any pause that a client would choose by itself then.
RETRY_MS, RETRY_AFTER_SECONDS = 1200, 3
STREAM = "a-stream"
# What those ask for on a socket who are to hear pings alone.
ENDLESS_PROMPT = "For ever?"
# After how long those are to come back who get nothing each time.
SOON_MS = 100
# By which name those ask who are sent away again and again.
BANISHED_HOST = "localhost"


@dataclass
class Asked:
    """One connection of a client, or one message on its socket."""

    at: float
    how: str
    last_id: str
    key: str


@dataclass
class ScriptedGateway:
    """`url` is its address; `asked` what the clients of the hard stories asked for, by story."""

    port: int = field(default_factory=free_port)
    asked: dict[str, list[Asked]] = field(default_factory=lambda: {"http": [], "socket": []})
    kept: set[object] = field(default_factory=set)
    """Connections on which somebody asked for an answer whose body ends late."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def generate(self, request: web.Request) -> web.StreamResponse:
        """By the header X-Story."""
        story = request.headers["X-Story"]
        if story == "hung":
            await asyncio.sleep(LONG_SECONDS)
        if story == "endless":
            return await self._endless(request)
        if story == "late":
            return await self._late(request)
        if story in FRUITLESS:
            answer = await _begin(request)
            await answer.write(FRUITLESS[story].encode())
            return answer
        return await self._wander(request, request.headers.get("Idempotency-Key", ""))

    async def socket(self, request: web.Request) -> web.StreamResponse:
        """The story of `_wander`, on a socket."""
        if request.host.startswith(BANISHED_HOST):
            return await self._banish(request)
        asked = self.asked["socket"]
        if len(asked) == 3:
            asked.append(Asked(monotonic(), "handshake", "", ""))
            return web.Response(status=503)
        peer = web.WebSocketResponse()
        await peer.prepare(request)
        async for frame in peer:
            if frame.type is not WSMsgType.TEXT:
                break
            said = json.loads(frame.data)
            while said.get("prompt") == ENDLESS_PROMPT and not peer.closed:
                await peer.send_json({"type": "ping"})
                await asyncio.sleep(0.1)
            how = said.get("type", "message")
            asked.append(Asked(monotonic(), how, said.get("last_event_id", ""), said.get("idempotency_key", "")))
            for message in SOCKET_STORY[min(len(asked), len(SOCKET_STORY)) - 1]:
                await peer.send_json(message)
            if len(asked) in SILENCES:
                await asyncio.sleep(LONG_SECONDS)
            if len(asked) in CUTS:
                assert request.transport is not None
                request.transport.abort()
                break
        return peer

    async def _wander(self, request: web.Request, key: str) -> web.StreamResponse:
        asked = self.asked["http"]
        asked.append(Asked(monotonic(), request.method, request.headers.get("Last-Event-ID", ""), key))
        number = len(asked)
        assert request.transport is not None
        if number == 1:
            request.transport.abort()  # before there are headers, and so before the stream has a name
            return web.Response()
        if number == 4:
            return web.Response(status=503, headers={"Retry-After": str(RETRY_AFTER_SECONDS)})
        answer = await _begin(request)
        await answer.write("".join(HTTP_STORY[min(number, len(HTTP_STORY)) - 1]).encode())
        if number in SILENCES:
            await asyncio.sleep(LONG_SECONDS)
        return answer

    async def _banish(self, request: web.Request) -> web.StreamResponse:
        peer = web.WebSocketResponse()
        await peer.prepare(request)
        await peer.receive()
        await peer.send_json(_message("reconnect", retry_ms=SOON_MS, reason="drain"))
        await asyncio.sleep(LONG_SECONDS)  # and no farewell
        return peer

    async def _late(self, request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        self.kept.add(request.transport.get_extra_info("peername"))
        answer = await _begin(request)
        await answer.write("".join(HTTP_STORY[-1]).encode())
        await asyncio.sleep(0.2)
        return answer

    async def _endless(self, request: web.Request) -> web.StreamResponse:
        answer = await _begin(request)
        with contextlib.suppress(ConnectionError):
            while True:
                await answer.write(b": ping\n\n")
                await asyncio.sleep(0.1)
        return answer


async def _begin(request: web.Request) -> web.StreamResponse:
    answer = web.StreamResponse(headers={"Content-Type": "text/event-stream", "X-Stream-Id": STREAM})
    await answer.prepare(request)
    return answer


def _event(name: str, place: str = "", retry_ms: int | None = None, **data: Any) -> str:
    head = f"id: {STREAM}.{place}\n" if place else ""
    retry = f"retry: {retry_ms}\n" if retry_ms is not None else ""
    return f"{head}{retry}event: {name}\ndata: {json.dumps(data)}\n\n"


def _message(kind: str, place: str = "", **fields: Any) -> dict[str, Any]:
    return {"type": kind, **({"id": f"{STREAM}.{place}"} if place else {}), **fields}


# What each connection brings. The first is cut at once, the fourth refused; what the third token of the first epoch
# would have been is void.
SILENCES = (5,)
CUTS = (1,)
HTTP_STORY = [
    [],
    [
        *(_event("token", f"0.{number}", token="a") for number in (1, 2)),
        _event("reset", "2.0", reason="producer_lost"),
        _event("token", "2.1", token="a"),
        _event("reconnect", retry_ms=RETRY_MS, reason="drain"),
    ],
    [_event("token", "2.2", token="b"), _event("error", code="log_unavailable", message="", retryable=True)],
    [],
    [_event("token", "2.3", token="c")],
    [_event("token", "2.4", token="d"), _event("done", "2.5", finish_reason="stop")],
    # Whoever asks again has its own stream.
    [_event("token", "0.1", token="a"), _event("done", "0.2", finish_reason="stop")],
]
# All that a connection brings of these, and of every one by which their clients come back.
FRUITLESS = {
    "exile": _event("reconnect", retry_ms=SOON_MS, reason="drain"),
    "cut": _event("notice", retry_ms=SOON_MS),
    "garbled": "event: error\ndata: {\n\n",
}
_START = _message("start", stream_id=STREAM)
SOCKET_STORY = [
    [],
    [
        _START,
        *(_message("token", f"0.{number}", token="a") for number in (1, 2)),
        _message("reset", "2.0", reason="producer_lost"),
        _message("token", "2.1", token="a"),
        _message("reconnect", retry_ms=RETRY_MS, reason="drain"),
    ],
    [
        _START,
        _message("token", "2.2", token="b"),
        _message("error", code="log_unavailable", retryable=True, stream_id=STREAM),
    ],
    [],
    [_START, _message("token", "2.3", token="c")],
    [_START, _message("token", "2.4", token="d"), _message("end", "2.5", finish_reason="stop")],
    [_START, _message("token", "0.1", token="a"), _message("end", "0.2", finish_reason="stop")],
]


@contextlib.contextmanager
def scripted_gateway() -> Iterator[ScriptedGateway]:
    """Runs on a thread of its own."""
    gateway = ScriptedGateway()
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="gateway", daemon=True)
    thread.start()
    app = web.Application()
    app.router.add_post("/api/v1/generate", gateway.generate)
    app.router.add_get("/api/v1/streams/{stream_id}", gateway.generate)
    app.router.add_get("/api/v1/ws/generate", gateway.socket)
    # A client that leaves ends its silence.
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1, handler_cancellation=True)

    async def start() -> None:
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", gateway.port).start()

    def do(what: Callable[[], Awaitable[None]]) -> None:
        async def done() -> None:
            await what()

        asyncio.run_coroutine_threadsafe(done(), loop).result(START_SECONDS_MAX)

    do(start)
    try:
        yield gateway
    finally:
        do(runner.cleanup)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(START_SECONDS_MAX)
        loop.close()
