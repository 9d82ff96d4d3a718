"""HTTP to one upstream: a pool of connections, the deadlines of a request, and what transport failures mean.

Knows no model API: it sends bytes and hands out the bytes of the answer. An answer that was read to its end gives its
connection back to the pool; any other closes it at once, which is what ends the upstream's work.
"""

import asyncio
from contextlib import suppress
from io import BytesIO
from types import SimpleNamespace

import aiohttp

from app.errors import UpstreamError, UpstreamInvalid, UpstreamTimeout, UpstreamTruncated, UpstreamUnreachable
from app.providers.watch import Watch

# An answer may stay in the connection's buffer up to twice this; 16 KiB are about 80 tokens, more than a reader that
# keeps up ever leaves there, and hundreds of slow streams stay small.
READ_BUFFER_BYTES = 16 * 1024
# Uvicorn, under most OpenAI-compatible servers, closes idle connections after 5 s. Closing ours first means that no
# POST meets a connection that is being closed: it could not be repeated, for a generation may have begun.
KEEP_ALIVE_SECONDS = 4
# How long the end of HTTP's body may lag behind the protocol's own before its connection is given up.
END_SECONDS = 0.05
# Addresses behind a name move with a rollout of the upstream.
DNS_CACHE_SECONDS = 10
WHOLE_BYTES_MAX = 256 * 1024  # of a request's body that is written at once


class Answer:
    """The upstream's answer while it is read."""

    def __init__(self, response: aiohttp.ClientResponse, watch: Watch) -> None:
        self._response = response
        self._content = response.content
        self.status = response.status
        self.headers = response.headers
        self.watch = watch

    async def read(self) -> bytes:
        """What has come since the last read, at least a byte; nothing at the end of the answer.

        Raises:
            UpstreamTruncated: the connection broke before the end.
            UpstreamError: a deadline passed.
        """
        try:
            return await self._content.readany()
        except UpstreamError:
            raise
        except (aiohttp.ClientError, OSError) as error:
            # aiohttp raises before it hands out what it has: of an answer whose reader lags behind its connection,
            # the last tokens and the end would be lost, and with them that it is complete.
            if self._content._buffer:
                return self._content._read_nowait(-1)
            raise UpstreamTruncated("The upstream's connection broke.", detail=_named(error)) from None

    async def read_all(self, bytes_max: int, seconds: float) -> bytes:
        """As much of the answer as comes within these bounds."""
        body = bytearray()
        with suppress(TimeoutError, UpstreamError):
            async with asyncio.timeout(seconds):
                while len(body) < bytes_max and (data := await self.read()):
                    body += data
        return bytes(body[:bytes_max])

    async def end(self, *, complete: bool) -> None:
        """Let go of the connection: `complete` says that all that matters was read."""
        self.watch.cancel()
        try:
            if complete and not self._content.is_eof():
                await self._skip_to_end()
        finally:
            self._abort()

    async def _skip_to_end(self) -> None:
        with suppress(TimeoutError, aiohttp.ClientError, OSError, UpstreamError):
            async with asyncio.timeout(END_SECONDS):
                while await self._content.readany():
                    pass

    def _abort(self) -> None:
        """Close the connection, if it is still ours: the end of the body has given it back to the pool."""
        # close() would first send what is left of a large request, and over TLS wait for the peer's goodbye.
        connection = self._response.connection
        if connection is not None and connection.transport is not None:
            connection.transport.abort()
        self._response.close()


class Upstream:
    """The pool, made inside the event loop that first uses it.

    Args:
        connect_seconds: until there is a connection: waiting for a free one, name, TCP and TLS.
        first_token_seconds: from sending the request to the first token.
        idle_seconds: between two tokens.
        total_seconds: for all of it.
        concurrency_max: connections at a time.
    """

    def __init__(
        self,
        *,
        connect_seconds: float,
        first_token_seconds: float,
        idle_seconds: float,
        total_seconds: float,
        concurrency_max: int,
    ) -> None:
        self._connect_seconds = connect_seconds
        self._first_token_seconds = first_token_seconds
        self._idle_seconds = idle_seconds
        self._total_seconds = total_seconds
        self._concurrency_max = concurrency_max
        self._session: aiohttp.ClientSession | None = None
        self._resolver: aiohttp.AsyncResolver | None = None

    async def post(self, url: str, headers: dict[str, str], body: bytes) -> Answer:
        """The answer to a POST, once its headers are there. Its reader has to `end` it.

        Raises:
            UpstreamUnreachable: no connection in time, or it was closed without an answer.
            UpstreamTimeout: no answer in time.
            UpstreamInvalid: the answer is not HTTP.
        """
        loop = asyncio.get_running_loop()
        total_at = loop.time() + self._total_seconds
        sending = _Sending(self._first_token_seconds, total_at)
        try:
            async with asyncio.timeout_at(min(loop.time() + self._connect_seconds, total_at)) as sending.deadline:
                response = await self._open_session().post(
                    url, data=_payload(body), headers=headers, allow_redirects=False, trace_request_ctx=sending
                )
        except TimeoutError as error:
            raise sending.timed_out(error) from None
        except (aiohttp.ClientResponseError, aiohttp.ClientPayloadError, aiohttp.InvalidURL) as error:
            raise UpstreamInvalid("The upstream did not answer in HTTP.", detail=_named(error)) from None
        except (aiohttp.ClientError, OSError) as error:
            raise UpstreamUnreachable("The upstream cannot be reached.", detail=_named(error)) from None
        watch = Watch(
            loop,
            response.content.set_exception,
            sent_at=sending.at or loop.time(),
            total_at=total_at,
            first_token_seconds=self._first_token_seconds,
            idle_seconds=self._idle_seconds,
        )
        return Answer(response, watch)

    async def aclose(self) -> None:
        """Close all connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None
        if self._resolver is not None:
            await self._resolver.close()
            self._resolver = None

    def _open_session(self) -> aiohttp.ClientSession:
        if self._session is None:
            # Not the default resolver: it needs a thread of the default executor, which other work may fill.
            self._resolver = aiohttp.AsyncResolver()
            connector = aiohttp.TCPConnector(
                limit=self._concurrency_max,
                keepalive_timeout=KEEP_ALIVE_SECONDS,
                ttl_dns_cache=DNS_CACHE_SECONDS,
                resolver=self._resolver,
            )
            trace = aiohttp.TraceConfig()
            trace.on_connection_create_end.append(_connected)
            trace.on_connection_reuseconn.append(_connected)
            self._session = aiohttp.ClientSession(
                connector=connector,
                cookie_jar=aiohttp.DummyCookieJar(),  # one caller's cookies must not go out with another's request
                timeout=aiohttp.ClientTimeout(total=None),  # the deadlines are ours: aiohttp's count bytes, not tokens
                trace_configs=[trace],
                trust_env=False,
                read_bufsize=READ_BUFFER_BYTES,
                headers={"User-Agent": "sluice"},
            )
        return self._session


class _Sending:
    """Where a request is on its way: the deadline is the connection's first, then the first token's."""

    def __init__(self, first_token_seconds: float, total_at: float) -> None:
        self._first_token_seconds = first_token_seconds
        self._total_at = total_at
        self.deadline: asyncio.Timeout
        self.at: float | None = None

    def connected(self) -> None:
        """There is a connection, and the request goes out."""
        self.at = asyncio.get_running_loop().time()
        if not self.deadline.expired():
            self.deadline.reschedule(min(self.at + self._first_token_seconds, self._total_at))

    def timed_out(self, error: TimeoutError) -> UpstreamError:
        """What the deadline that passed was for; without one, the system's own time for a connection is over."""
        if self.at is None or not self.deadline.expired():
            return UpstreamUnreachable("The upstream cannot be reached.", detail=str(error) or "no connection in time")
        return UpstreamTimeout("The upstream sent no token in time.", detail="no answer")


def _payload(body: bytes) -> bytes | BytesIO:
    """Large ones in a form that aiohttp writes in pieces, so that other streams get their turn between them."""
    return body if len(body) <= WHOLE_BYTES_MAX else BytesIO(body)


def _named(error: Exception) -> str:
    """For the log; not `repr`, which for some of aiohttp's has the request's headers, and so the key."""
    return f"{type(error).__name__}: {error}"


async def _connected(_session: aiohttp.ClientSession, context: SimpleNamespace, _parameters: object) -> None:
    context.trace_request_ctx.connected()
