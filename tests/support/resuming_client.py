"""A client as a careful team would write one: it names its request, comes back with the last id, and is in no hurry.

It backs off with full jitter, does what `reconnect`, `retry:` and `Retry-After` ask for, takes a connection that is
silent for three heartbeats for dead, and never gives up on anything that may pass.
"""

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from time import monotonic
from typing import Any

import aiohttp

from tests.support.journal import Journal, parse_frame

BACKOFF_SECONDS = 0.1
BACKOFF_SECONDS_MAX = 2.0
HEARTBEATS_MISSED_MAX = 3
# What may be otherwise a moment later.
PASSING = (429, 500, 502, 503, 504)


@dataclass
class ResumingClient:
    """One stream of one client.

    Args:
        url: of the server, or of what stands before it.
        body: of POST /api/v1/generate.
        key: its Idempotency-Key.
        heartbeat_seconds: the server's.
        seconds_max: then it gives up, and its journal has no end.
        by_post: how often it resumes by its first request with `Last-Event-ID`, instead of by the stream's own address.
        cuts: when it cuts its own connection, as people on trains do: asked after every event.
    """

    session: aiohttp.ClientSession
    url: str
    body: dict[str, Any]
    key: str
    rng: random.Random
    heartbeat_seconds: float = 15.0
    seconds_max: float = 90.0
    by_post: float = 0.3
    cuts: Callable[[Journal], bool] = lambda _: False
    journal: Journal = field(default_factory=Journal)
    on_connection: Callable[[str], None] = lambda _: None
    """Called with the reason why each connection ended, when it has."""
    _retry_seconds: float | None = None
    _failures: int = 0

    async def run(self) -> Journal:
        """Until the stream has ended, or the time is over."""
        journal = self.journal
        journal.key = self.key
        began = monotonic()
        try:
            async with asyncio.timeout(self.seconds_max):
                while journal.end is None:
                    reason = await self._connect()
                    journal.waits[reason] += 1
                    self.on_connection(reason)
                    if journal.end is None:
                        await asyncio.sleep(self._pause_seconds())
        except TimeoutError:
            journal.wrong(f"no end within {self.seconds_max:g} s: {dict(journal.waits)}")
        except _Refused as refused:
            journal.wrong(f"refused: {refused}")
        journal.took_seconds = monotonic() - began
        return journal

    async def _connect(self) -> str:
        """One connection, and why it ended."""
        self._failures += 1
        silence = aiohttp.ClientTimeout(sock_connect=5, sock_read=HEARTBEATS_MISSED_MAX * self.heartbeat_seconds)
        try:
            async with self._request(silence) as answer:
                if answer.status == 204:
                    self.journal.wrong(f"204 before the end, behind {self.journal.last_id}")
                    raise _Refused("204")
                if answer.status != 200:
                    return await self._turned_away(answer)
                self.journal.begin()
                self.journal.name(answer.headers["X-Stream-Id"])
                return await self._read(answer)
        except TimeoutError:
            return "silence"
        except (aiohttp.ClientError, ConnectionError) as error:
            return f"cut: {type(error).__name__}"

    def _request(self, timeout: aiohttp.ClientTimeout) -> "aiohttp.client._RequestContextManager":
        journal = self.journal
        headers = {"Last-Event-ID": journal.last_id} if journal.last_id else {}
        if journal.stream_id and not (journal.last_id and self.rng.random() < self.by_post):
            return self.session.get(f"{self.url}/api/v1/streams/{journal.stream_id}", headers=headers, timeout=timeout)
        headers["Idempotency-Key"] = self.key
        return self.session.post(f"{self.url}/api/v1/generate", json=self.body, headers=headers, timeout=timeout)

    async def _turned_away(self, answer: aiohttp.ClientResponse) -> str:
        text = await answer.text()
        if answer.status not in PASSING:
            raise _Refused(f"{answer.status} {text}")
        if "Retry-After" in answer.headers:
            # Everybody is told the same second: those who come back spread over it.
            self._retry_seconds = float(answer.headers["Retry-After"]) * self.rng.uniform(0.5, 1.5)
        elif answer.status == 503:
            self.journal.wrong("503 without Retry-After")
        return str(answer.status)

    async def _read(self, answer: aiohttp.ClientResponse) -> str:
        journal = self.journal
        async for block in _blocks(answer):
            frame = parse_frame(block)
            if frame is None:
                continue
            if frame.retry is not None:
                self._retry_seconds = frame.retry / 1000
            journal.see(frame)
            if frame.event == "reconnect":
                return f"reconnect {frame.json()['reason']}"
            if frame.event == "error" and journal.end is None:
                return f"error {frame.json()['code']}"
            self._failures = 0
            journal.heard(monotonic())
            if journal.end is not None:
                return "end"
            if self.cuts(journal):
                answer.close()
                return "cut by the client"
        return "cut: no end"

    def _pause_seconds(self) -> float:
        asked, self._retry_seconds = self._retry_seconds, None
        if asked is not None:
            return asked
        most = min(BACKOFF_SECONDS * 2**self._failures, BACKOFF_SECONDS_MAX)
        return self.rng.uniform(0, most)


class _Refused(Exception):
    """An answer that no further request changes."""


async def _blocks(answer: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    buffer = b""
    async for chunk in answer.content.iter_any():
        *blocks, buffer = (buffer + chunk).split(b"\n\n")
        for block in blocks:
            yield block
