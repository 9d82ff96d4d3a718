"""Documents: versions that only rise, writers who are told that they come late, and a time to live."""

import asyncio

from app.errors import LogFull
from tests.contract.conftest import Open
from tests.contract.logs import Log, Options
from tests.support.waiting import until

TTL = 60.0


async def put(log: Log, key: str, body: bytes, version: int = 0, ttl_seconds: float = TTL) -> int:
    made = await log.put_document(key, body, version, ttl_seconds)
    assert made is not None
    return made


async def test_what_was_put_is_there_until_it_is_dropped(log: Log) -> None:
    body = bytes(range(256)) * 400
    version = await put(log, "a", body)
    assert await log.get_document("a") == (version, body)
    assert await log.get_document("b") is None
    await log.drop_document("a")
    await log.drop_document("a")
    assert await log.get_document("a") is None


async def test_who_read_another_version_changes_nothing(log: Log) -> None:
    first = await put(log, "a", b"1")
    assert await log.put_document("a", b"2", 0, TTL) is None
    second = await put(log, "a", b"2", first)
    assert await log.put_document("a", b"3", first, TTL) is None
    assert await log.put_document("b", b"3", first, TTL) is None
    assert await log.get_document("a") == (second, b"2")


async def test_of_many_writers_at_once_one_succeeds(log: Log) -> None:
    first = await put(log, "a", b"0")
    made = await asyncio.gather(*(log.put_document("a", b"%d" % number, first, TTL) for number in range(20)))
    assert sum(version is not None for version in made) == 1


async def test_versions_rise_also_past_a_document_that_is_gone(log: Log) -> None:
    versions = []
    for _ in range(3):
        versions.append(await put(log, "a", b"x"))
        versions.append(await put(log, "a", b"x", versions[-1]))
        await log.drop_document("a")
    assert versions == sorted(set(versions))


async def test_versions_are_told_for_many_at_once(log: Log) -> None:
    made = {f"k{number}": await put(log, f"k{number}", b"x") for number in range(40)}
    assert await log.document_versions([*made, "none"]) == [*made.values(), 0]
    assert await log.document_versions([]) == []


async def test_a_document_is_forgotten_when_its_time_is_over_and_each_write_begins_it_anew(log: Log) -> None:
    kept = await put(log, "kept", b"x", ttl_seconds=0.3)
    kept = await put(log, "kept", b"x", kept)
    await put(log, "gone", b"x", ttl_seconds=0.3)

    async def gone() -> bool:
        await log.reap()
        return await log.get_document("gone") is None

    await until(gone)
    assert await log.document_versions(["gone", "kept"]) == [0, kept]
    assert await log.put_document("gone", b"y", 0, TTL)


async def test_a_full_store_refuses_documents_and_has_room_again_once_some_are_gone(opened: Open) -> None:
    log = await opened(Options(bytes_max=4 * 1024 * 1024))
    kept = 0
    try:
        for kept in range(200):
            await put(log, f"k{kept}", b"x" * 100_000)
    except LogFull:
        pass
    assert 5 < kept < 199
    for number in range(kept):
        await log.drop_document(f"k{number}")
    await put(log, "last", b"x" * 100_000)
