"""How large a request's body may be, counted and not believed, and how long it may take to come."""

import asyncio

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.scope import sent_headers

# NGINX hands bodies over whole. Without it, this is 350 KB/s for the largest, and a bound on those who send a byte a
# second.
BODY_SECONDS_MAX = 30.0
_CLOSE = {"Connection": "close"}


class BodyLimitMiddleware:
    """A body that is too large or too late is an error to whoever reads it, and is answered as such.

    Args:
        bytes_max: as sent; Uvicorn undoes no compression.
    """

    def __init__(self, app: ASGIApp, bytes_max: int, seconds_max: float = BODY_SECONDS_MAX) -> None:
        self._app = app
        self._bytes_max = bytes_max
        self._seconds_max = seconds_max

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            headers = sent_headers(scope)
            if b"content-length" in headers or b"transfer-encoding" in headers:
                declared = int(headers.get(b"content-length", 0))
                receive = _Body(receive, declared, self._bytes_max, self._seconds_max).receive
        await self._app(scope, receive, send)


class _Body:
    """One request's, as it comes."""

    def __init__(self, receive: Receive, declared: int, bytes_max: int, seconds_max: float) -> None:
        self._receive = receive
        self._bytes_max = bytes_max
        self._seconds_max = seconds_max
        self._deadline = asyncio.get_running_loop().time() + seconds_max
        self._bytes = declared
        self._counted = 0
        self._whole = False

    async def receive(self) -> Message:
        """
        Raises:
            HTTPException: 413 or 408.
        """
        if self._whole:
            return await self._receive()  # the client's leaving, for which a stream listens all its life
        self._check()
        try:
            async with asyncio.timeout_at(self._deadline):
                message = await self._receive()
        except TimeoutError:
            raise HTTPException(408, f"The body took longer than {self._seconds_max:g} s.", _CLOSE) from None
        self._counted += len(message.get("body", b""))
        self._bytes = max(self._bytes, self._counted)
        self._check()
        self._whole = not message.get("more_body", False)
        return message

    def _check(self) -> None:
        if self._bytes > self._bytes_max:
            # Closed: to keep the connection, all the rest would have to be read.
            raise HTTPException(413, f"The body is larger than {self._bytes_max} bytes.", _CLOSE)
