"""What one client saw of one stream over all its connections, and everything about it that must not be."""

import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

ID = re.compile(r"([0-9A-Za-z_-]{22,40})\.(\d+)\.(\d+)")
# What a browser may send back across origins without asking first.
ID_ALLOWED = re.compile(r"[0-9A-Za-z._-]{1,64}")
ENDS = ("done", "error")
# What a machine that is too slow explains.
LATE = re.compile(r"(^|: )(no end within|silence behind|refused:|ended with (error)?) ")


class NotExactlyOnce(AssertionError):
    """A token was lost, repeated or altered. No noise explains that: such a test fails at once, and is not run again
    (pyproject.toml)."""


def check_wrongs(wrongs: Sequence[str], story: Sequence[str] = ()) -> None:
    """Fail if anything was wrong.

    Raises:
        NotExactlyOnce: with tokens.
        AssertionError: with nothing but time.
    """
    if wrongs:
        kind = AssertionError if all(LATE.search(wrong) for wrong in wrongs) else NotExactlyOnce
        raise kind("\n".join([f"{len(wrongs)} wrongs", *wrongs[:40], *story]))


def check_text(found: str, text: str) -> None:
    """Fail if a stream said another text than it had to.

    Raises:
        NotExactlyOnce: so it is.
    """
    if found != text:
        raise NotExactlyOnce(difference(found, text))


def difference(found: str, expected: str) -> str:
    """Where two texts part."""
    at = next(
        (i for i, (a, b) in enumerate(zip(found, expected, strict=False)) if a != b), min(len(found), len(expected))
    )
    return f"{len(found)} of {len(expected)} characters, from {at} on {found[at:][:40]!r} for {expected[at:][:40]!r}"


class Frame(NamedTuple):
    """One event: its lines, taken apart."""

    id: str | None
    event: str
    data: bytes
    retry: int | None

    def json(self) -> Any:
        return json.loads(self.data)


def parse_frame(block: bytes) -> Frame | None:
    """What stands between two blank lines; None for comments. Strict: the server writes one line of each kind."""
    fields: dict[bytes, bytes] = {}
    for line in block.split(b"\n"):
        if line and not line.startswith(b":"):
            name, _, value = line.partition(b": ")
            assert name in {b"id", b"event", b"data", b"retry"} - fields.keys(), block
            fields[name] = value
    if b"data" not in fields:
        assert not fields, block
        return None
    retry = int(fields[b"retry"]) if b"retry" in fields else None
    last_id = fields[b"id"].decode() if b"id" in fields else None
    return Frame(last_id, fields[b"event"].decode(), fields[b"data"], retry)


@dataclass
class Journal:
    """Give it every frame by `see`, and say by `begin` that a connection begins. `wrongs` should stay empty."""

    key: str = ""
    stream_id: str = ""
    last_id: str | None = None
    tokens: list[str] = field(default_factory=list)
    end: dict[str, Any] | None = None
    end_event: str = ""
    seen: dict[str, bytes] = field(default_factory=dict)
    wrongs: list[str] = field(default_factory=list)
    connections: int = 0
    waits: Counter[str] = field(default_factory=Counter)
    """Why each connection ended, and what refused one: `reconnect drain`, `503`, `cut` …"""
    without_id: int = 0
    notices: list[bool] = field(default_factory=list)
    took_seconds: float = 0.0
    silence_seconds_max: float = 0.0
    """Longest time between two events, resumes included."""
    _heard_at: float = 0.0
    _settled: int = 0
    _place: tuple[int, int] = (0, 0)

    @property
    def text(self) -> str:
        return "".join(self.tokens)

    def check(self, text: str, end: str = "done") -> None:
        """Fail unless the stream ended so, and said this text and each token of it once.

        Args:
            end: the last event; empty for a stream that is read no further.

        Raises:
            NotExactlyOnce: with its tokens.
            AssertionError: with its end, or with nothing but time.
        """
        check_wrongs(self.wrongs)
        assert self.end_event == end, self.end
        check_text(self.text, text)

    def name(self, stream_id: str) -> None:
        """The answer's X-Stream-Id."""
        if self.stream_id and stream_id != self.stream_id:
            self.wrong(f"another stream: {stream_id} after {self.stream_id}")
        self.stream_id = stream_id

    def begin(self) -> None:
        """A connection begins: what came without an id will come again, with one."""
        self.connections += 1
        del self.tokens[self._settled :]
        if self.last_id is None:
            self._place = (0, 0)

    def see(self, frame: Frame) -> None:
        """One event of a connection."""
        if self.end is not None:
            self.wrong(f"behind the end: {frame}")
        if frame.event == "notice":
            self.notices.append(frame.json()["resumable"])
        elif frame.event == "reconnect":
            if frame.id is not None:
                self.wrong(f"an id on what is not in the log: {frame}")
        else:
            self._see_logged(frame)

    def heard(self, now: float) -> None:
        """An event has come."""
        if self._heard_at:
            self.silence_seconds_max = max(self.silence_seconds_max, now - self._heard_at)
        self._heard_at = now

    def wrong(self, what: str) -> None:
        """Note what must not be."""
        self.wrongs.append(what)

    def _see_logged(self, frame: Frame) -> None:
        if frame.id is not None:
            self._see_id(frame)
        if frame.event == "token":
            self._see_token(frame)
        elif frame.event in ENDS:
            said = frame.json()
            if frame.id is None and said.get("retryable"):
                return  # of this connection, and not of the stream
            self.end, self.end_event = said, frame.event
        elif frame.event == "reset":
            self.tokens.clear()
        else:
            self.wrong(f"an unknown event: {frame}")
        if frame.id is not None:
            self._settled = len(self.tokens)

    def _see_token(self, frame: Frame) -> None:
        token = frame.json()
        if frame.id is None:
            self.without_id += 1
        if token["index"] != len(self.tokens) + 1:
            self.wrong(f"token {token['index']} behind {len(self.tokens)} tokens")
        self.tokens.append(token["token"])

    def _see_id(self, frame: Frame) -> None:
        assert frame.id is not None
        found = ID.fullmatch(frame.id)
        if found is None or not ID_ALLOWED.fullmatch(frame.id) or found[1] != self.stream_id:
            self.wrong(f"not an id of {self.stream_id}: {frame.id}")
            return
        place = (int(found[2]), int(found[3]))
        if place <= self._place:
            self.wrong(f"{frame.id} behind {self._place}")
        if self.seen.setdefault(frame.id, frame.data) != frame.data:
            self.wrong(f"{frame.id} had another content before: {self.seen[frame.id]!r}, now {frame.data!r}")
        self._place = place
        self.last_id = frame.id
