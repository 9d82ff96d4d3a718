"""What a client has read of one stream, over all its connections: its place, and whether something is missing.

Takes server-sent events by the line, and what any other protocol says by its meaning. Knows nothing of connections but
that one begins.
"""

from loadtests.observation import Observation, Outcome
from loadtests.sse import Event, EventDecoder
from loadtests.surfaces import Meaning, Surface

# Of a connection; the stream has ended only with the first two.
ENDS = {
    Meaning.DONE: Outcome.FINISHED,
    Meaning.FAILED: Outcome.FAILED,
    Meaning.PASSING: Outcome.RECONNECT,
    Meaning.RECONNECT: Outcome.RECONNECT,
}
# A server that only ever sends its clients away has given them nothing.
OF_THE_STREAM = frozenset({Meaning.TOKEN, Meaning.RESET, Meaning.DONE})


class Reading:
    """Tell it of each connection, and of all that comes on it."""

    def __init__(self, surface: Surface, observation: Observation) -> None:
        self.observation = observation
        self.last_id = ""
        self.retry_seconds: float | None = None
        """After how long the client was asked to come back; None where nobody said."""
        self.heard = False
        """Whether anything of the stream came on this connection."""
        self._surface = surface
        self._decoder = EventDecoder()
        # Tokens since the last id: the log was away, and whoever comes back is told them again.
        self._unnamed = 0

    def connect(self) -> None:
        """A new connection begins a new sequence of bytes."""
        self._decoder = EventDecoder()
        self.retry_seconds, self.heard = None, False
        self.observation.void(self._unnamed)
        self._unnamed = 0

    def feed(self, line: bytes, at: float) -> str | None:
        """Takes a line that arrived; how the connection ends, when it does."""
        before = self._decoder.comments
        for event in self._decoder.feed(line):
            if (outcome := self._event(event, at)) is not None:
                return outcome
        self.observation.heartbeats += self._decoder.comments - before
        return None

    def take(self, meaning: Meaning, identity: str, at: float) -> str | None:
        """Takes an event, with its own id or ""; how the connection ends, when it does."""
        self.heard = self.heard or meaning in OF_THE_STREAM
        if identity:
            if not self._follows(meaning, identity):
                return Outcome.REPEATED
            self.last_id, self._unnamed = identity, 0
        if meaning is Meaning.TOKEN:
            self._unnamed += not identity
            self.observation.token(at)
        elif meaning is Meaning.RESET:
            self.observation.reset()
            self._unnamed = 0
        elif meaning is Meaning.PASSING and identity:
            return Outcome.FAILED
        return ENDS.get(meaning)

    def _event(self, event: Event, at: float) -> str | None:
        if event.retry_ms is not None:
            self.retry_seconds = event.retry_ms / 1000
        return self.take(self._surface.meaning(event), event.id if event.named else "", at)

    def _follows(self, meaning: Meaning, identity: str) -> bool:
        """Whether an id is the next of its stream: `<stream>.<epoch>.<seq>`, without a hole or a repetition."""
        try:
            stream, epoch, seq = _place(identity)
            if not self.last_id:
                return True
            last_stream, last_epoch, last_seq = _place(self.last_id)
        except ValueError:
            return False
        if stream != last_stream:
            return False
        if meaning is Meaning.RESET:
            return epoch > last_epoch
        if self._unnamed:  # what had no id has had its place
            return (epoch, seq) > (last_epoch, last_seq)
        return (epoch, seq) == (last_epoch, last_seq + 1)


def _place(identity: str) -> tuple[str, int, int]:
    stream, epoch, seq = identity.rsplit(".", 2)
    return stream, int(epoch), int(seq)
