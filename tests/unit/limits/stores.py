"""Each store of accounts, opened for one test."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from app.limits.account import Ask, Cost, Limit
from app.limits.counters import Counters
from app.limits.stores import open_counters

ALL = ["memory", "lmdb", "redis"]
MINUTE = 60_000


@asynccontextmanager
async def opened(name: str, folder: Path, redis_url: str) -> AsyncIterator[Counters]:
    """The store of that name; nothing of an earlier test is in it."""
    url = {"memory": "memory://", "lmdb": f"lmdb://{folder}", "redis": redis_url}[name]
    store = await open_counters(url)
    try:
        yield store
    finally:
        await store.aclose()


def cost(most: int, wanted: int = 1, least: int | None = None, *, name: str = "r", window_ms: int = MINUTE) -> Cost:
    return Cost(Limit(name, window_ms, most), wanted, wanted if least is None else least)


def ask(*costs: Cost, key: str = "key:ana", slot: str = "", slots_max: int = 0, slot_ms: int = MINUTE) -> Ask:
    return Ask(key, costs, slot, slots_max, slot_ms)
