"""HTTP to one upstream: the deadlines of a request, and what transport failures mean.

Knows no model API: it sends bytes and hands out the bytes of the answer. An answer that was read to its end gives its
connection back to the pool; any other closes it at once, which is what ends the upstream's work.
"""

import asyncio
import re
from base64 import b64encode
from collections.abc import Callable, Mapping
from contextlib import suppress

from app.errors import UpstreamError, UpstreamInvalid, UpstreamTruncated, UpstreamUnreachable
from app.providers.http.connection import ConnectionBroken, HttpConnection, NotHTTP
from app.providers.http.origin import Origin, Target
from app.providers.http.pool import Pool
from app.providers.watch import Watch

# How long the end of HTTP's body may lag behind the protocol's own before its connection is given up.
END_SECONDS = 0.05
# What would end a header and begin another, or the body.
_FORBIDDEN = re.compile(r"[\r\n\0]")


class Answer:
    """The upstream's answer while it is read."""

    def __init__(self, pool: Pool, origin: Origin, connection: HttpConnection, watch: Watch) -> None:
        self._pool = pool
        self._origin = origin
        self._connection = connection
        self._held = True
        self.status = connection.status
        self.headers: Mapping[str, str] = connection.headers  # by name in any case
        self.watch = watch

    async def read(self) -> bytes:
        """What has come since the last read, at least a byte; nothing at the end of the answer.

        Raises:
            UpstreamTruncated: the connection broke before the end.
            UpstreamError: a deadline passed.
        """
        try:
            return await self._connection.read()
        except (ConnectionBroken, NotHTTP) as error:
            raise UpstreamTruncated("The upstream's connection broke.", detail=_named(error)) from None

    def offer(self, taker: Callable[[bytes], bool]) -> None:
        """While somebody waits in `read`, let `taker` have what comes; what it refuses, `read` returns."""
        self._connection.taker = taker

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
        if not self._held:
            return
        self._held = False
        try:
            if complete and not self._connection.complete:
                with suppress(TimeoutError, UpstreamError):
                    async with asyncio.timeout(END_SECONDS):
                        while await self.read():
                            pass
        finally:
            self._pool.give_back(self._origin, self._connection)


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
        self._pool: Pool | None = None
        self._targets: dict[str, Target] = {}

    async def post(self, url: str, headers: Mapping[str, str], body: bytes) -> Answer:
        """The answer to a POST, once its headers are there. Its reader has to `end` it.

        Args:
            headers: without those of HTTP itself, which are set here.

        Raises:
            UpstreamUnreachable: no connection in time, or it was closed without an answer.
            UpstreamTimeout: no answer in time.
            UpstreamInvalid: the answer is not HTTP.
        """
        target = self._target(url)
        head = _head(target, headers, len(body))
        if self._pool is None:
            self._pool = Pool(self._concurrency_max)
        pool, loop = self._pool, asyncio.get_running_loop()
        total_at = loop.time() + self._total_seconds
        connection = await self._connected(pool, target.origin, total_at)
        watch = Watch(
            loop,
            connection.fail,
            sent_at=loop.time(),
            total_at=total_at,
            first_token_seconds=self._first_token_seconds,
            idle_seconds=self._idle_seconds,
        )
        answered = False
        try:
            await connection.send(head, body)
            await connection.head()
            answered = True
        except ConnectionBroken as error:
            raise UpstreamUnreachable("The upstream cannot be reached.", detail=_named(error)) from None
        except NotHTTP as error:
            raise UpstreamInvalid("The upstream did not answer in HTTP.", detail=_named(error)) from None
        finally:
            if not answered:
                watch.cancel()
                pool.give_back(target.origin, connection)
        return Answer(pool, target.origin, connection, watch)

    async def aclose(self) -> None:
        """Close all connections."""
        if self._pool is not None:
            pool, self._pool = self._pool, None
            await pool.aclose()

    def _target(self, url: str) -> Target:
        target = self._targets.get(url)
        if target is None:
            try:
                target = self._targets[url] = Target.of(url)
            except ValueError as error:
                raise UpstreamInvalid("The upstream's address is wrong.", detail=f"{url}: {error}") from None
        return target

    async def _connected(self, pool: Pool, origin: Origin, total_at: float) -> HttpConnection:
        # Most requests find one, and pay for no timer.
        if (kept := await pool.take_kept(origin)) is not None:
            return kept
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout_at(min(loop.time() + self._connect_seconds, total_at)):
                return await pool.take(origin)
        except TimeoutError as error:
            # The system's own time for a connection may be over sooner.
            detail = str(error) or "no connection in time"
            raise UpstreamUnreachable("The upstream cannot be reached.", detail=detail) from None
        except OSError as error:
            raise UpstreamUnreachable("The upstream cannot be reached.", detail=_named(error)) from None


def _head(target: Target, headers: Mapping[str, str], body_bytes: int) -> bytes:
    lines = [f"POST {target.path} HTTP/1.1", f"host: {target.origin.authority}", "user-agent: sluice"]
    if target.userinfo is not None and "authorization" not in headers:
        lines.append(f"authorization: Basic {b64encode(target.userinfo.encode()).decode()}")
    lines += [f"{name}: {value}" for name, value in headers.items()]
    lines.append(f"content-length: {body_bytes}")
    if _FORBIDDEN.search("".join(lines)):
        raise UpstreamInvalid("The request cannot be sent to the upstream.", detail="a header has a line end in it")
    return "\r\n".join([*lines, "\r\n"]).encode("latin-1", "replace")


def _named(error: Exception) -> str:
    """For the log; not `repr`, which could have more in it than it says."""
    return f"{type(error).__name__}: {error}"
