"""What a stream costs at the least that people write in Python: Starlette's StreamingResponse around an httpx client.

No log, no limits, no metrics, no resume. `uvicorn loadtests.compare.plain:app` runs it; `ORIGIN` is the upstream.
"""

import os
from collections.abc import AsyncIterator

import httpx
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

# httpx opens no more connections than these, and lets the others wait.
LIMITS = httpx.Limits(max_connections=None, max_keepalive_connections=200)
client = httpx.AsyncClient(base_url=os.environ.get("ORIGIN", ""), limits=LIMITS, timeout=60)


async def chat(request: Request) -> Response:
    """Passes the body on, and the answer back as it comes."""
    asked = client.build_request("POST", "/v1/chat/completions", content=await request.body())
    answer = await client.send(asked, stream=True)

    async def pieces() -> AsyncIterator[bytes]:
        try:
            async for piece in answer.aiter_raw():
                yield piece
        finally:
            await answer.aclose()

    return StreamingResponse(pieces(), answer.status_code, media_type="text/event-stream")


async def ready(_: Request) -> Response:
    return PlainTextResponse("ready")


app = Starlette(routes=[Route("/v1/chat/completions", chat, methods=["POST"]), Route("/readyz", ready)])
