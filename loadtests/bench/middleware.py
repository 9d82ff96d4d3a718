"""What the middlewares that guard the edge, and a place, cost a request: CPU time of this process alone.

    .venv/bin/python -m loadtests.bench.middleware

One POST after the other through raw ASGI, its body read and a short answer sent, with the headers that NGINX and an SDK
send. Each figure is a stack's less the bare app's. Of several rounds the cheapest counts, since neighbours only ever
make it dearer.
"""

import gc
from collections.abc import Awaitable, Callable
from time import process_time

import uvloop
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.admission.places import Places
from app.middleware.body_limit import BodyLimitMiddleware
from app.middleware.cors import SitesMiddleware
from app.middleware.drain import DrainMiddleware
from app.middleware.hosts import HostsMiddleware
from app.middleware.security_headers import SecurityHeadersMiddleware

REQUESTS, ROUNDS = 5_000, 9
BODY = b'{"model": "m", "messages": [{"role": "user", "content": "Say it."}]}'
HEADERS = [
    (b"host", b"api.example"),
    (b"content-type", b"application/json"),
    (b"accept", b"text/event-stream"),
    (b"user-agent", b"client/1.0"),
    (b"authorization", b"Bearer sk-sluice"),
    *((b"x-stainless-%d" % number, b"x") for number in range(8)),
    (b"x-request-id", b"1" * 32),
    (b"x-real-ip", b"10.0.0.7"),
    (b"content-length", b"%d" % len(BODY)),
]
ANSWER = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-store, no-transform")]


async def bare(scope: Scope, receive: Receive, send: Send) -> None:
    del scope
    await receive()
    await send({"type": "http.response.start", "status": 200, "headers": ANSWER})
    await send({"type": "http.response.body", "body": b"x"})


async def receive() -> Message:
    return {"type": "http.request", "body": BODY, "more_body": False}


async def send(message: Message) -> None:
    del message


def refused(_: Scope) -> ASGIApp:
    return bare


LAYERS: dict[str, Callable[[ASGIApp], ASGIApp]] = {
    "drain": lambda app: DrainMiddleware(app, lambda: False, refused),
    "CORS, no Origin": lambda app: SitesMiddleware(app, ("https://app.example",), credentials=False),
    "body limit": lambda app: BodyLimitMiddleware(app, 10_000_000),
    "hosts": lambda app: HostsMiddleware(app, ("api.example",), refused),
    "security headers": SecurityHeadersMiddleware,
}


async def microseconds(one: Callable[[], Awaitable[None]]) -> float:
    rounds = []
    for _ in range(ROUNDS):
        gc.collect()
        began = process_time()
        for _ in range(REQUESTS):
            await one()
        rounds.append((process_time() - began) / REQUESTS * 1e6)
    return min(rounds)


async def through(app: ASGIApp) -> float:
    return await microseconds(
        lambda: app({"type": "http", "method": "POST", "path": "/v1/x", "headers": HEADERS}, receive, send)
    )


async def place() -> float:
    places = Places(384, 192, 5.0)

    async def one() -> None:
        held = places.take_now("key:acme")
        assert held is not None
        held.leave()

    return await microseconds(one)


async def main() -> None:
    without = await through(bare)
    whole: ASGIApp = bare
    for name, layer in LAYERS.items():
        print(f"{name:18}{await through(layer(bare)) - without:6.1f} us")
        whole = layer(whole)
    print(f"{'all of them':18}{await through(whole) - without:6.1f} us")
    print(f"{'a place':18}{await place():6.1f} us")


if __name__ == "__main__":
    uvloop.run(main())
