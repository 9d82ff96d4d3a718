"""Keys from an address: fetched within bounds, kept through outages, asked for again where a token names a new one."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from time import monotonic

import pytest
from aiohttp import web

from app.security.jwks import BYTES_MAX, UrlKeys
from tests.support.tokens import jwk, jwks


class Provider:
    """An identity provider's key set, served as a test wants it."""

    def __init__(self) -> None:
        self.content = jwks()
        self.status = 200
        self.headers: dict[str, str] = {}
        self.delay_seconds = 0.0
        self.asked = 0
        self.url = ""

    async def answer(self, _: web.Request) -> web.Response:
        self.asked += 1
        await asyncio.sleep(self.delay_seconds)
        return web.Response(body=self.content, status=self.status, headers=self.headers)


@asynccontextmanager
async def served() -> AsyncIterator[Provider]:
    provider = Provider()
    app = web.Application()
    app.router.add_get("/{path:.*}", provider.answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    provider.url = f"http://{host}:{port}/keys"
    try:
        yield provider
    finally:
        await runner.cleanup()


async def test_keys_are_fetched_and_fetched_again_where_one_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    async with served() as provider:
        keys = UrlKeys(provider.url, ["RS256"])
        await keys.look_again()
        assert list(keys.keys) == ["k1"]
        provider.content = jwks(jwk("k2"))
        for _ in range(50):
            await keys.look_again()
        assert provider.asked == 1, "whoever sends tokens with nonsense in them must not make us ask each time"
        monkeypatch.setattr("app.security.jwks.ASK_AGAIN_SECONDS", 0.0)
        await keys.look_again()
        assert list(keys.keys) == ["k2"]


async def test_all_who_wait_share_one_fetch() -> None:
    async with served() as provider:
        provider.delay_seconds = 0.2
        keys = UrlKeys(provider.url, ["RS256"])
        await asyncio.gather(*(keys.look_again() for _ in range(20)))
        assert (list(keys.keys), provider.asked) == (["k1"], 1)


@pytest.mark.parametrize("fault", ["500", "404", "redirect", "huge", "endless", "nonsense", "empty", "gone"])
async def test_keys_that_are_known_stay_whatever_the_provider_answers(
    fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.security.jwks.ASK_AGAIN_SECONDS", 0.0)
    monkeypatch.setattr("app.security.jwks.FETCH_SECONDS_MAX", 0.5)
    async with served() as provider, served() as other:
        other.content = jwks(jwk("evil"))
        keys = UrlKeys(provider.url, ["RS256"])
        await keys.look_again()
        if fault == "gone":
            keys._url = "http://127.0.0.1:1/keys"
        provider.status = {"500": 500, "404": 404, "redirect": 302}.get(fault, 200)
        provider.headers = {"Location": other.url} if fault == "redirect" else {}
        provider.delay_seconds = 30.0 if fault == "endless" else 0.0
        provider.content = {"huge": b" " * (BYTES_MAX + 1), "nonsense": b"<html>", "empty": b'{"keys":[]}'}.get(
            fault, jwks(jwk("k2"))
        )
        began = monotonic()
        await keys.look_again()
        assert monotonic() - began < 2
        assert list(keys.keys) == ["k1"]
        assert other.asked == 0


async def test_who_gives_up_waiting_does_not_end_the_fetch() -> None:
    async with served() as provider:
        provider.delay_seconds = 0.3
        keys = UrlKeys(provider.url, ["RS256"])
        waiting = asyncio.create_task(keys.look_again())
        await asyncio.sleep(0.05)
        waiting.cancel()
        await keys.look_again()
        assert list(keys.keys) == ["k1"]
        await keys.aclose()
