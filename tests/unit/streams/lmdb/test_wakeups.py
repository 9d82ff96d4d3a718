"""Datagrams between processes: who is told of what, and what happens to those who are gone."""

import asyncio
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from app.streams.lmdb.wakeups import Wakeups
from tests.support.waiting import until

STREAM = "s" * 22
OTHER = "t" * 22


class End:
    """One process's end, and the streams that it was woken for."""

    def __init__(self, folder: Path) -> None:
        self.woken: list[str] = []
        self.cancels: list[str] = []
        self.wakeups = Wakeups(folder, self.woken.append, self.cancels.append)


@pytest.fixture
async def ends(tmp_path: Path) -> AsyncIterator[list[End]]:
    """Three of them."""
    made = [End(tmp_path / "wakeups") for _ in range(3)]
    with ExitStack() as stack:
        for end in made:
            stack.enter_context(closing(end.wakeups))
        yield made


async def test_only_those_who_announced_themselves_are_told(ends: list[End]) -> None:
    owner, reader, bystander = ends
    reader.wakeups.announce([STREAM])
    await asyncio.sleep(0.05)
    for _ in range(3):
        owner.wakeups.wake([OTHER, STREAM])

    async def told() -> bool:
        return len(reader.woken) == 3

    await until(told)
    assert reader.woken == [STREAM] * 3
    assert bystander.woken == []
    assert owner.woken == []


async def test_many_streams_are_announced_and_told_in_few_datagrams(ends: list[End]) -> None:
    owner, reader, _ = ends
    streams = [f"{number:022}" for number in range(2500)]
    reader.wakeups.announce(streams)
    await asyncio.sleep(0.1)
    owner.wakeups.wake(streams)

    async def told() -> bool:
        return len(reader.woken) == 2500

    await until(told)
    assert reader.woken == streams


async def test_a_reader_that_does_not_keep_up_holds_nobody(ends: list[End]) -> None:
    """Its datagrams are dropped; it looks for itself later."""
    owner, reader, _ = ends
    reader.wakeups.announce([STREAM])
    await asyncio.sleep(0.05)
    for _ in range(2000):
        owner.wakeups.wake([STREAM])
    await asyncio.sleep(0.1)
    assert 0 < len(reader.woken) <= 2000
    owner.wakeups.wake([STREAM])
    before = len(reader.woken)

    async def told() -> bool:
        return len(reader.woken) > before

    await until(told)


async def test_what_is_not_an_announcement_is_passed_over(ends: list[End], tmp_path: Path) -> None:
    owner, reader, _ = ends
    (name,) = [name for name in os.listdir(tmp_path / "wakeups") if name == owner.wakeups._name]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as stranger:
        for datagram in (b"", b"\0", b"\xc1", b"\x92\x01\x02", os.urandom(300)):
            stranger.sendto(datagram, str(tmp_path / "wakeups" / name))
    reader.wakeups.announce([STREAM])
    await asyncio.sleep(0.05)
    owner.wakeups.wake([STREAM])

    async def told() -> bool:
        return reader.woken == [STREAM]

    await until(told)
    assert owner.woken == []


async def test_sockets_of_the_dead_are_cleaned_up(ends: list[End], tmp_path: Path) -> None:
    owner, reader, _ = ends
    dead = bind_and_die(tmp_path / "wakeups")
    assert dead in os.listdir(tmp_path / "wakeups")
    reader.wakeups.announce([STREAM])
    await asyncio.sleep(0.05)
    assert dead not in os.listdir(tmp_path / "wakeups")
    owner.wakeups.wake([STREAM])

    async def told() -> bool:
        return reader.woken == [STREAM]

    await until(told)


async def test_closing_leaves_no_socket_behind(tmp_path: Path) -> None:
    End(tmp_path / "wakeups").wakeups.close()
    assert os.listdir(tmp_path / "wakeups") == []


async def test_a_folder_with_a_long_path_will_do(tmp_path: Path) -> None:
    """The address of a socket holds 108 bytes; a path may be longer."""
    folder = tmp_path / ("d" * 120) / "wakeups"
    folder.parent.mkdir()
    owner, reader = End(folder), End(folder)
    with closing(owner.wakeups), closing(reader.wakeups):
        reader.wakeups.announce([STREAM])
        await asyncio.sleep(0.05)
        owner.wakeups.wake([STREAM])

        async def told() -> bool:
            return reader.woken == [STREAM]

        await until(told)


async def test_an_interest_that_is_not_repeated_is_forgotten(ends: list[End], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.streams.lmdb.wakeups.INTEREST_SECONDS", 0.2)
    owner, reader, _ = ends
    reader.wakeups.announce([STREAM])
    await asyncio.sleep(0.05)
    assert owner.wakeups._interests
    await asyncio.sleep(0.3)
    owner.wakeups.wake([STREAM])
    owner.wakeups.forget()
    reader.wakeups.forget()
    await asyncio.sleep(0.05)
    assert reader.woken == []
    assert not owner.wakeups._interests
    assert not reader.wakeups._announced


async def test_interests_are_bounded(ends: list[End], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.streams.lmdb.wakeups.INTERESTS_MAX", 100)
    owner, reader, _ = ends
    reader.wakeups.announce([f"{number:022}" for number in range(1000)])
    await asyncio.sleep(0.1)
    assert len(owner.wakeups._interests) <= 101


def bind_and_die(folder: Path) -> str:
    """A socket whose process was killed; its name."""
    script = """
import asyncio, os, pathlib, signal, sys
from app.streams.lmdb.wakeups import Wakeups
async def bind():
    print(Wakeups(pathlib.Path(sys.argv[1]), print, print)._name, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
asyncio.run(bind())
"""
    command = [sys.executable, "-c", script, str(folder)]
    return subprocess.run(command, cwd=Path(__file__).parents[4], stdout=subprocess.PIPE, text=True).stdout.strip()
