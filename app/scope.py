"""What the layers of one request tell each other through its ASGI scope, by reference.

Context variables would not do: a task that the request starts sees a copy, and a kept-alive connection the last one's.
"""

from collections.abc import Awaitable, Callable, Mapping
from time import monotonic
from typing import Any, Protocol

from starlette.types import Scope

Headers = list[tuple[bytes, bytes]]


class Wire(Protocol):
    """The connection below ASGI, for what ASGI cannot say."""

    @property
    def writable(self) -> bool:
        """Whether a body has begun, and its reader takes more of it at once."""
        ...

    def write(self, body: bytes) -> None:
        """Send a piece of the body that has begun."""
        ...

    def end(self, body: bytes, linger_seconds: float) -> None:
        """End the body with `body`, whether its reader takes it now or not, and reset the connection after a while;
        reset it at once where no body has begun."""
        ...

    def abort(self) -> None:
        """Reset the connection: closing it in order would first wait for the reader to take what is buffered."""
        ...


class SocketWire(Wire, Protocol):
    """A WebSocket below ASGI: what is written are frames."""

    async def drained(self) -> None:
        """Return once the reader takes more, or is gone."""
        ...


def begin(scope: Scope) -> float:
    """The request begins now, by the monotonic clock."""
    now = scope["sluice.began_at"] = monotonic()
    return now


def began_at(scope: Scope) -> float:
    """When it began; now, if nobody has said."""
    found: float = scope.get("sluice.began_at") or monotonic()
    return found


def set_request_id(scope: Scope, identity: str) -> None:
    """Name the request."""
    scope["sluice.request_id"] = identity


def request_id(scope: Scope) -> str:
    """The request's id; empty before it has one."""
    return str(scope.get("sluice.request_id", ""))


def sent_headers(scope: Scope) -> Mapping[bytes, bytes]:
    """The request's headers by their names; of several of one name, the first. Made once, since many layers ask."""
    headers: dict[bytes, bytes] | None = scope.get("sluice.sent_headers")
    if headers is None:
        headers = scope["sluice.sent_headers"] = dict(reversed(scope["headers"]))
    return headers


def note(scope: Scope) -> dict[str, Any]:
    """The fields that the request's line in the access log will have besides its own; add to it."""
    fields: dict[str, Any] = scope.setdefault("sluice.note", {})
    return fields


def own_headers(scope: Scope) -> Headers:
    """Headers that the answer will carry besides its own, whichever it becomes."""
    headers: Headers = scope.setdefault("sluice.headers", [])
    return headers


def set_headers(scope: Scope, headers: Headers) -> None:
    """Have these among `own_headers`, in place of those of the same names."""
    named = {name for name, _ in headers}
    own = own_headers(scope)
    own[:] = [header for header in own if header[0] not in named] + headers


def when_opened(scope: Scope, tell: Callable[[], Awaitable[None]]) -> None:
    """Have somebody told once what the request came for is there, and not before."""
    scope["sluice.opened"] = tell


def take_opened(scope: Scope) -> Callable[[], Awaitable[None]] | None:
    """Who is to be told, and is so once; None for most."""
    found: Callable[[], Awaitable[None]] | None = scope.pop("sluice.opened", None)
    return found


def set_wire(scope: Scope, connection: Wire) -> None:
    """Let layers above reach below ASGI."""
    scope.setdefault("extensions", {})["sluice.wire"] = connection


def socket_wire(scope: Scope) -> SocketWire:
    """The WebSocket below ASGI."""
    found: SocketWire = scope["extensions"]["sluice.wire"]
    return found


def unset_wire(scope: Scope) -> None:
    """The connection is no more."""
    scope.get("extensions", {}).pop("sluice.wire", None)


def wire(scope: Scope) -> Wire | None:
    """The connection below ASGI; None under a server that is not ours."""
    found: Wire | None = scope.get("extensions", {}).get("sluice.wire")
    return found
