"""Conversations on every log: what was answered is told again, one turn at a time, within bounds."""

import asyncio
import secrets
from collections.abc import AsyncIterator

import pytest

from app.admission.places import Places
from app.events import Event, Failed, Token
from app.providers.base import GenerationRequest
from app.streams.conversations import Conversations
from app.streams.log import StreamRecord
from app.streams.registry import Streams
from tests.contract.conftest import Open
from tests.contract.logs import Log, Options
from tests.contract.streams import DONE, put
from tests.support.waiting import until

KEY = Conversations.key("alice", "c1")


class Talk:
    """One worker's conversations, on streams whose answers the test writes itself."""

    def __init__(self, log: Log, messages_max: int = 10, bytes_max: int = 1000, ttl_seconds: float = 60.0) -> None:
        def none(_: StreamRecord) -> None: ...

        self.log = log
        places = Places(1000, 0, 1)
        streams = Streams(
            log,
            "w1",
            none,  # type: ignore[arg-type] # nothing is generated here
            60,
            1 << 20,
            pod_draining=lambda: False,
            places=places,
        )
        self.conversations = Conversations(streams, messages_max, bytes_max, ttl_seconds)

    async def stream(self) -> str:
        name = secrets.token_urlsafe(18)
        record = StreamRecord(name, "alice", "native", GenerationRequest("m", []), "finish", 1.0, 1_790_000_000)
        return (await self.log.create(record, "w1")).stream_id

    async def say(self, said: str, *answer: Event) -> str:
        """A turn, which is answered as far as `answer` goes."""
        stream_id = await self.stream()
        assert await self.conversations.add(await self.conversations.open(KEY), said, stream_id)
        if answer:
            assert await put(self.log, stream_id, 1, answer) == "ok"
        return stream_id

    async def heard(self) -> list[str]:
        return [message["content"] for message in (await self.conversations.open(KEY)).messages]


@pytest.fixture
async def talk(log: Log) -> AsyncIterator[Talk]:
    await log.beat("w1")
    made = Talk(log)
    yield made
    await made.conversations.aclose()


async def test_what_was_said_and_answered_is_told_again_in_order(talk: Talk) -> None:
    assert await talk.heard() == []
    await talk.say("one", Token("1", index=1), Token("hm", kind="thought"), Token("!", index=2), DONE)
    await talk.say("two", Token("2\u2028", index=1), DONE)
    assert await talk.heard() == ["one", "1!", "two", "2\u2028"]
    found = await talk.conversations.open(KEY)
    assert [message["role"] for message in found.messages] == ["user", "assistant"] * 2
    assert await Talk(talk.log).heard() == await talk.heard()


async def test_a_turn_that_is_being_answered_is_seen_and_one_that_failed_was_never_said(talk: Talk) -> None:
    stream_id = await talk.say("one")
    running = (await talk.conversations.open(KEY)).running
    assert running is not None
    assert running.stream_id == stream_id
    await put(talk.log, stream_id, 1, [Token("half", index=1), Failed("cancelled", "Stopped.", 499, False)])
    assert (await talk.conversations.open(KEY)).running is None
    await talk.say("two", Token("2", index=1), DONE)
    assert await talk.heard() == ["two", "2"]


async def test_of_two_turns_at_once_one_begins(talk: Talk) -> None:
    found = await talk.conversations.open(KEY)
    streams = [await talk.stream() for _ in range(5)]
    added = await asyncio.gather(*(talk.conversations.add(found, "x", stream_id) for stream_id in streams))
    assert sorted(added) == [False] * 4 + [True]


async def test_the_oldest_turns_are_forgotten_first(log: Log) -> None:
    await log.beat("w1")
    by_count, by_size = Talk(log, messages_max=6), Talk(log, bytes_max=40)
    for number in range(6):
        await by_count.say(f"q{number}", Token(f"a{number}", index=1), DONE)
    assert await by_count.heard() == ["q3", "a3", "q4", "a4", "q5", "a5"]
    await by_size.say("x" * 30, Token("y" * 30, index=1), DONE)
    await by_size.say("last", Token("answer", index=1), DONE)
    assert await by_size.heard() == ["last", "answer"]


async def test_a_conversation_is_forgotten_when_its_time_is_over(opened: Open) -> None:
    log = await opened(Options())
    await log.beat("w1")
    talk = Talk(log, ttl_seconds=0.4)
    await talk.say("one", Token("1", index=1), DONE)

    async def gone() -> bool:
        return (await talk.conversations.open(KEY)).version == 0

    await until(gone)
    assert await talk.heard() == []


async def test_a_turn_on_one_worker_is_heard_of_on_another_within_a_moment(talk: Talk) -> None:
    other, heard = Talk(talk.log), asyncio.Event()
    other.conversations.follow(KEY, heard.set)
    await asyncio.sleep(0)
    stream_id = await talk.say("one")
    async with asyncio.timeout(20):
        await heard.wait()
    assert [(turn.stream_id, turn.said) for turn in await other.conversations.turns(KEY)] == [(stream_id, "one")]
    other.conversations.unfollow(KEY, heard.set)
    await other.conversations.aclose()


def test_every_caller_has_conversations_of_his_own() -> None:
    keys = {Conversations.key(*pair) for pair in [("alice", "c1"), ("bob", "c1"), ("alice", "c2"), ("alicec", "1")]}
    assert len(keys) == 4
