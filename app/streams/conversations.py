"""Conversations: what was said before, kept as a document beside the streams, for whoever says the next thing.

A turn is kept when it begins, with the stream that answers it. Its answer is read from that stream's log when the next
turn begins, and from then on kept with the turn. So nobody has to be there at the end of an answer: not the client, and
not the worker that began it. A turn whose stream did not end well was never said.
"""

import asyncio
from collections.abc import Callable
from hashlib import blake2b
from typing import Any

import msgspec

from app.errors import CursorGone, LogUnavailable, NotFound
from app.events import Reset, Token
from app.streams.log import START, StreamRecord
from app.streams.reader import PAGE_EVENTS_MAX
from app.streams.registry import Streams

# How soon a socket hears of a turn that began on another worker: one question to the store for all conversations that
# are followed here.
WATCH_SECONDS = 0.25


class Turn(msgspec.Struct, frozen=True):
    """What a person said, and what was answered; None until that was read from its stream."""

    said: str
    stream_id: str
    answer: str | None = None


class Kept(msgspec.Struct, frozen=True):
    """The document."""

    turns: list[Turn] = []


class Conversation(msgspec.Struct, frozen=True):
    """A conversation as it was found.

    Args:
        version: of its document; 0 before it began.
        turns: those that are answered, the oldest first.
        running: the stream that answers the newest turn just now.
    """

    key: str
    version: int
    turns: list[Turn]
    running: StreamRecord | None = None

    @property
    def messages(self) -> list[dict[str, Any]]:
        """What was said, as a model is told it."""
        found: list[dict[str, Any]] = []
        for turn in self.turns:
            found.append({"role": "user", "content": turn.said})
            found.append({"role": "assistant", "content": turn.answer})
        return found


_kept = msgspec.msgpack.Decoder(Kept)


class Conversations:
    """One for each worker.

    Args:
        messages_max, bytes_max: of one conversation; the oldest turns are forgotten first.
        ttl_seconds: how long one is kept after its last turn began; no longer than streams are kept after their ends,
            since the newest answer is in one.
    """

    def __init__(self, streams: Streams, messages_max: int, bytes_max: int, ttl_seconds: float) -> None:
        self._streams = streams
        self._messages_max = messages_max
        self._bytes_max = bytes_max
        self._ttl_seconds = ttl_seconds
        self._followers: dict[str, list[Callable[[], None]]] = {}
        self._seen: dict[str, int] = {}
        self._watching: asyncio.Task[None] | None = None

    @staticmethod
    def key(principal: str, conversation_id: str) -> str:
        """The document's; every principal has conversations of his own, whatever he calls them."""
        return blake2b(msgspec.msgpack.encode((principal, conversation_id)), digest_size=20).hexdigest()

    async def open(self, key: str) -> Conversation:
        """What was said so far, with the newest answer if that is complete.

        Raises:
            LogUnavailable
        """
        document = await self._streams.backend.get_document(key)
        if document is None:
            return Conversation(key, 0, [])
        turns: list[Turn] = []
        running: StreamRecord | None = None
        for turn in _kept.decode(document.body).turns:
            if turn.answer is None:
                running, answer = await self._answer(turn.stream_id)
                if not answer:
                    continue
                turns.append(msgspec.structs.replace(turn, answer=answer))
            else:
                turns.append(turn)
        return Conversation(key, document.version, turns, running)

    async def add(self, conversation: Conversation, said: str, stream_id: str) -> bool:
        """A turn begins, answered by that stream; False if another one began since the conversation was opened.

        Raises:
            LogUnavailable
        """
        turns = [*conversation.turns, Turn(said, stream_id)]
        size = sum(_size(turn) for turn in turns)
        while len(turns) > 1 and (size > self._bytes_max or 2 * len(turns) > self._messages_max):
            size -= _size(turns.pop(0))
        body = msgspec.msgpack.encode(Kept(turns))
        backend = self._streams.backend
        version = await backend.put_document(conversation.key, body, conversation.version, self._ttl_seconds)
        if version is None:
            return False
        self._tell(conversation.key, version)
        return True

    async def drop(self, key: str) -> None:
        """Forget what was said."""
        await self._streams.backend.drop_document(key)

    async def turns(self, key: str) -> list[Turn]:
        """All that are kept, the oldest first, as they are kept.

        Raises:
            LogUnavailable
        """
        document = await self._streams.backend.get_document(key)
        return [] if document is None else _kept.decode(document.body).turns

    def follow(self, key: str, wake: Callable[[], None]) -> None:
        """Call `wake` whenever a turn may have begun, here or on another worker, until `unfollow`."""
        self._followers.setdefault(key, []).append(wake)
        if self._watching is None:
            self._watching = asyncio.create_task(self._watch(), name="conversations")

    def unfollow(self, key: str, wake: Callable[[], None]) -> None:
        self._followers[key].remove(wake)
        if not self._followers[key]:
            del self._followers[key]
            self._seen.pop(key, None)

    async def aclose(self) -> None:
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.gather(self._watching, return_exceptions=True)

    async def _watch(self) -> None:
        try:
            while self._followers:
                await asyncio.sleep(WATCH_SECONDS)
                keys = list(self._followers)
                try:
                    versions = await self._streams.backend.document_versions(keys)
                except LogUnavailable:
                    continue
                for key, version in zip(keys, versions, strict=True):
                    self._tell(key, version)
        finally:
            self._watching = None

    def _tell(self, key: str, version: int) -> None:
        if key in self._followers and self._seen.get(key) != version:
            self._seen[key] = version
            for wake in self._followers[key]:
                wake()

    async def _answer(self, stream_id: str) -> tuple[StreamRecord | None, str]:
        """The stream if it still runs, or else its text; neither if it is of no use."""
        found = await self._streams.backend.describe(stream_id)
        if found is None or found[1].state not in ("running", "done"):
            return None, ""
        if found[1].state == "running":
            return found[0], ""
        try:
            return None, await self._text(stream_id)
        except (CursorGone, NotFound):
            return None, ""

    async def _text(self, stream_id: str) -> str:
        texts: list[str] = []
        after = START
        while page := await self._streams.backend.read(stream_id, after, PAGE_EVENTS_MAX):
            for _, event in page:
                if type(event) is Reset:
                    texts.clear()
                elif type(event) is Token and event.kind == "content":
                    texts.append(event.text)
            after = page[-1][0]
        return "".join(texts)


def _size(turn: Turn) -> int:
    return len(turn.said.encode(errors="replace")) + len((turn.answer or "").encode(errors="replace"))
