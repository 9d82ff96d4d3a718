"""The stream that a socket reads just now, as its messages tell it."""

from collections.abc import Sequence

from app.errors import SluiceError
from app.streams.connection import Connection
from app.streams.delivery import Delivery
from app.streams.log import START, format_id
from app.streams.reader import Reader
from app.streams.response import Push
from app.streams.sockets import SocketEncoder, message
from app.streams.tail import Entry


class SocketReading:
    """Say `start`; then tell what `take` gives, until it has `ended`."""

    def __init__(self, reader: Reader) -> None:
        self.reader = reader
        self.record = reader.record
        self.delivery = Delivery()
        self._encoder = SocketEncoder(self.record.stream_id, self.record.request.model)

    @property
    def stream_id(self) -> str:
        return self.record.stream_id

    @property
    def ended(self) -> bool:
        return self.reader.ended

    @property
    def last_event_id(self) -> str | None:
        """Behind which to go on; None before the first event."""
        at = self.reader.cursor
        return None if at == START else format_id(self.stream_id, at)

    def start(self, conversation_id: str | None, said: str | None) -> bytes:
        """The message that announces it.

        Args:
            said: what it answers, for the conversation's other sockets.
        """
        model = self.record.request.model
        return message("start", stream_id=self.stream_id, model=model, conversation_id=conversation_id, message=said)

    def follow(self, connection: Connection) -> None:
        """Have what comes sent at once, where the connection keeps up."""
        self.reader.follow(Push(self.reader, connection, self._encoder, self.delivery))

    async def take(self) -> Sequence[Entry]:
        """What there is to tell; nothing means wait."""
        try:
            return await self.reader.take()
        except SluiceError as error:
            # An end of the reading, not of the stream: it has no id.
            self.reader.ended = True
            return [(None, error.as_event())]

    def told(self, entries: Sequence[Entry]) -> bytes:
        """Messages for these entries, which count as delivered."""
        self.delivery.count(entries)
        return b"".join([self._encoder.encode(cursor, event) for cursor, event in entries])
