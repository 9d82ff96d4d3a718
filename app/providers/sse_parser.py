"""Server-sent events from bytes, as the WHATWG standard parses them, fed in whatever pieces the network gives.

Works on bytes until an event is whole: a character split between two reads is whole by then, and U+2028 or U+0085,
which `str.splitlines` would cut at, are ordinary bytes. What an event's data means is not known here.
"""

import msgspec

from app.errors import UpstreamInvalid

CR = 0x0D
LF = 0x0A
BOM = b"\xef\xbb\xbf"
RETRY_DIGITS_MAX = 9  # 11 days in milliseconds; more is not a time, and Python refuses to parse thousands of digits


class SSEEvent(msgspec.Struct, frozen=True, gc=False):
    """One dispatched event; `id` is the last one that the stream gave, `retry` what this event's block asked for."""

    data: bytes
    event: str = "message"
    id: str | None = None
    retry: int | None = None

    def text(self) -> str:
        """The data as text.

        Raises:
            UpstreamInvalid: it is not UTF-8.
        """
        return _text(self.data)


class SSEParser:
    """Incremental: `feed` returns the events that its bytes complete. An event that EOF cuts short is never returned.

    Args:
        line_bytes_max: longest line.
        event_bytes_max: most data of one event.
    """

    def __init__(self, *, line_bytes_max: int = 1024 * 1024, event_bytes_max: int = 4 * 1024 * 1024) -> None:
        self._line_bytes_max = line_bytes_max
        self._event_bytes_max = event_bytes_max
        self._started = False  # a BOM may come only before everything else
        self._after_cr = False  # a LF that follows belongs to the CR, also when the next read brings it
        self._tail = bytearray()  # a line without its end; a bytearray, since appending to bytes would be quadratic
        self._data: bytes | bytearray | None = None  # of the event so far; nearly always one line, then its bytes
        self._event = "message"
        self._id: str | None = None
        self._retry: int | None = None
        # Whether nothing of a line or an event is held: what comes next begins an event.
        self.between = False

    def feed(self, data: bytes) -> list[SSEEvent]:
        """The events that `data` completes, in order.

        Raises:
            UpstreamInvalid: a line or an event is over its bound, or an event's name or id is not UTF-8.
        """
        if self.between:
            # The way of nearly every read, kept to the fewest calls: one whole event of one data line.
            lines = data.splitlines()  # of bytes: splits at CR, LF and CRLF only
            if len(lines) == 2 and not lines[1] and data[-1] == LF and len(data) <= self._line_bytes_max:
                line = lines[0]
                if line[:6] == b"data: ":
                    return [SSEEvent(line[6:], "message", self._id)]
        elif not (data := self._join(data)):
            return []
        else:
            lines = data.splitlines()
        return self._lines(lines, data)

    def _join(self, data: bytes) -> bytes:
        """`data` behind what earlier reads left; empty when it is only kept, since no line ends in it."""
        if self._after_cr and data:
            self._after_cr = False
            if data[0] == LF:
                data = data[1:]
        if self._tail:
            if b"\n" not in data and b"\r" not in data:
                self._keep(data)
                return b""
            data = bytes(self._tail) + data
            self._tail.clear()
        if not self._started and data:
            if len(data) < len(BOM) and BOM.startswith(data):
                self._keep(data)
                return b""
            self._started = True
            data = data.removeprefix(BOM)
        return data

    def _lines(self, lines: list[bytes], data: bytes) -> list[SSEEvent]:
        """The events that these lines complete; a last one without its end is kept."""
        if len(data) > self._line_bytes_max and max(map(len, lines)) > self._line_bytes_max:
            raise self._too_long("line", self._line_bytes_max)
        if data and data[-1] != LF:
            self._after_cr = data[-1] == CR
            if not self._after_cr:
                self._keep(lines.pop())
        events = []
        for line in lines:
            if line[:6] == b"data: " and self._data is None:
                self._data = line[6:]
            elif line:
                self._field(line)
            else:
                if self._data is not None:
                    events.append(SSEEvent(bytes(self._data), self._event, self._id, self._retry))
                    self._data = None
                self._event = "message"
                self._retry = None
        self.between = not (
            self._tail
            or self._after_cr
            or self._data is not None
            or self._event != "message"
            or self._retry is not None
        )
        return events

    def _keep(self, data: bytes) -> None:
        self.between = False
        if len(self._tail) + len(data) > self._line_bytes_max:
            raise self._too_long("line", self._line_bytes_max)
        self._tail += data

    def _field(self, line: bytes) -> None:
        name, _, value = line.partition(b":")
        if value[:1] == b" ":
            value = value[1:]
        if name == b"data":
            self._append(value)
        elif name == b"event":
            self._event = _text(value) or "message"
        elif name == b"id":
            if b"\0" not in value:
                self._id = _text(value)
        elif name == b"retry" and value.isdigit() and len(value) <= RETRY_DIGITS_MAX:
            self._retry = int(value)

    def _append(self, value: bytes) -> None:
        if self._data is None:
            self._data = value
            return
        if len(self._data) + len(value) >= self._event_bytes_max:
            raise self._too_long("event", self._event_bytes_max)
        if not isinstance(self._data, bytearray):
            self._data = bytearray(self._data)
        self._data += b"\n"
        self._data += value

    @staticmethod
    def _too_long(what: str, bytes_max: int) -> UpstreamInvalid:
        return UpstreamInvalid("The upstream sent what is not a valid stream.", detail=f"{what} over {bytes_max} bytes")


def _text(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError as error:
        raise UpstreamInvalid("The upstream sent text that is not UTF-8.", detail=str(error)) from None
