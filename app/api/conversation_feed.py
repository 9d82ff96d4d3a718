"""A conversation as one socket follows it: which of its streams was told last, and whether there may be another."""

from collections.abc import Callable

from app.streams.conversations import Conversations


class ConversationFeed:
    """`begin` it, and `end` it.

    Args:
        key: the conversation's.
        wake: told when there may be news.

    `news`: whether to ask for the `next`.
    """

    def __init__(self, conversations: Conversations, key: str, wake: Callable[[], None]) -> None:
        self._conversations = conversations
        self._key = key
        self._wake = wake
        self._at: str | None = None
        self.news = False

    async def begin(self) -> None:
        """Hear of what is said from now on; what was said before is told."""
        self._conversations.follow(self._key, self._hear)
        self._at = await self.newest()

    def end(self) -> None:
        self._conversations.unfollow(self._key, self._hear)

    def told(self, stream_id: str) -> None:
        """It went to the client, whoever asked for it; the next is the one behind it."""
        self._at = stream_id

    async def newest(self) -> str | None:
        """The conversation's last stream."""
        ids = await self.stream_ids()
        return ids[-1] if ids else None

    async def stream_ids(self) -> list[str]:
        """Those of its streams, in the order in which they were asked for."""
        return [turn.stream_id for turn in await self._conversations.turns(self._key)]

    async def next(self) -> tuple[str, str] | None:
        """The stream behind that which was told last, now told, and what began it; None if there is none."""
        self.news = False
        turns = await self._conversations.turns(self._key)
        ids = [turn.stream_id for turn in turns]
        # One that is not there any more did not end well, or was forgotten for its age.
        place = ids.index(self._at) + 1 if self._at in ids else max(0, len(ids) - 1) if self._at else 0
        if place == len(ids):
            return None
        self._at = turns[place].stream_id
        return self._at, turns[place].said

    def _hear(self) -> None:
        self.news = True
        self._wake()
