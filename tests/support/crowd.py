"""Many resuming clients at once, each with a stream of its own."""

import asyncio
import random
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import aiohttp

from tests.support.asgi import until
from tests.support.journal import Journal, check_text, check_wrongs, difference
from tests.support.resuming_client import ResumingClient

# Limits of requests are by the minute; one wait is enough, if nobody else asks.
MINUTES_MAX = 3


@asynccontextmanager
async def session(
    headers: Mapping[str, str] | None = None, *, force_close: bool = False
) -> AsyncIterator[aiohttp.ClientSession]:
    """For as many connections as a test wants.

    Args:
        headers: of every request.
        force_close: a connection for each request.
    """
    connector = aiohttp.TCPConnector(limit=0, force_close=force_close)
    async with aiohttp.ClientSession(connector=connector, headers=headers) as opened:
        yield opened


def body(number: int, **simulator: Any) -> dict[str, Any]:
    """A native request for a stream like no other."""
    return {"prompt": f"Tell me {number}.", "stream": True, "simulator": {"seed": number, **simulator}}


@asynccontextmanager
async def crowd(url: str, bodies: Sequence[dict[str, Any]], **options: Any) -> AsyncIterator[list[ResumingClient]]:
    """Clients that are reading; at the block's end they are waited for.

    Args:
        options: of each `ResumingClient`.
    """
    async with session() as opened:
        clients = [
            ResumingClient(opened, url, one, f"crowd-{number}-{random.random()}", random.Random(number), **options)
            for number, one in enumerate(bodies)
        ]
        reading = [asyncio.create_task(client.run()) for client in clients]
        try:
            await until(lambda: all(client.journal.tokens or client.journal.end for client in clients), 30.0)
            yield clients
            await asyncio.gather(*reading)
        finally:
            for task in reading:
                task.cancel()


async def text_of(url: str, request: dict[str, Any], headers: Mapping[str, str] | None = None) -> str:
    """What a request's text is, by one JSON answer that is made at once."""
    whole = request | {
        "stream": False,
        "simulator": request["simulator"] | {"tokens_per_second": 0, "first_token_ms": 0},
    }
    async with session(headers) as opened:
        for _ in range(MINUTES_MAX):
            async with opened.post(f"{url}/api/v1/generate", json=whole) as answer:
                if answer.status != 429:
                    assert answer.status == 200, await answer.text()
                    return str((await answer.json())["response"])
            # A caller who asks for thousands of texts meets the limit of any tier.
            await asyncio.sleep(float(answer.headers["Retry-After"]))
    raise AssertionError(f"limited for {MINUTES_MAX} times Retry-After")


async def check_texts(url: str, clients: Sequence[ResumingClient], headers: Mapping[str, str] | None = None) -> None:
    """Everybody has the whole text, once, and nothing else went wrong."""
    wrongs = [f"{client.key}: {wrong}" for client in clients for wrong in client.journal.wrongs]
    for client in clients:
        if client.journal.end_event != "done":
            wrongs.append(f"{client.key}: ended with {client.journal.end_event} {client.journal.end}")
        elif client.journal.text != (text := await text_of(url, client.body, headers)):
            wrongs.append(f"{client.key}: another text: {difference(client.journal.text, text)}")
    check_wrongs(wrongs)


async def check_beginnings(url: str, clients: Sequence[ResumingClient]) -> None:
    """Of streams that could be lost, everybody has what came before: all of it where the stream ended well."""
    for client in clients:
        text, journal = await text_of(url, client.body), client.journal
        check_text(journal.text, text if journal.end_event == "done" else text[: len(journal.text)])


def reasons(journals: Sequence[Journal]) -> dict[str, int]:
    """Why their connections ended, and how often."""
    found: dict[str, int] = {}
    for journal in journals:
        for reason, count in journal.waits.items():
            found[reason] = found.get(reason, 0) + count
    return found
