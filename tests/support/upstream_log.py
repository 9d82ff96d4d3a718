"""What the scripted upstream saw: each generation, and when, how and at which token its peer closed."""

from typing import Any

import msgspec


class Entry(msgspec.Struct):
    """One generation. Times are CLOCK_MONOTONIC, which all processes of the machine share."""

    generation: int
    model: str
    connection: int
    headers: dict[str, str]
    body: dict[str, Any]
    started: float
    tokens: int = 0
    """Tokens written so far; once the peer has closed, those it could have seen."""
    finished: float | None = None
    outcome: str | None = None
    """`complete`, `died` as scripted, or `peer_closed`."""
    closed: str | None = None
    """How the peer closed before the answer was finished: `fin` or `rst`."""
    closed_at: float | None = None


class Log(msgspec.Struct):
    """All of it so far."""

    accepted: int = 0
    """Connections accepted, the tests' own control connections included."""
    open: int = 0
    requests: list[Entry] = []
