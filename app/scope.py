"""What the layers of one request tell each other through its ASGI scope, by reference.

Context variables would not do: a task that the request starts sees a copy, and a kept-alive connection the last one's.
"""

from typing import Any

from starlette.types import Scope


def set_request_id(scope: Scope, identity: str) -> None:
    """Name the request."""
    scope["sluice.request_id"] = identity


def request_id(scope: Scope) -> str:
    """The request's id; empty before it has one."""
    return str(scope.get("sluice.request_id", ""))


def note(scope: Scope) -> dict[str, Any]:
    """The fields that the request's line in the access log will have besides its own; add to it."""
    fields: dict[str, Any] = scope.setdefault("sluice.note", {})
    return fields


def set_transport(scope: Scope, transport: Any) -> None:
    """Let `abort` reach the connection's transport."""
    scope.setdefault("extensions", {})["sluice.transport"] = transport


def abort(scope: Scope) -> None:
    """Reset the connection: closing it in order would first wait for the reader to take what is buffered."""
    if transport := scope.get("extensions", {}).get("sluice.transport"):
        transport.abort()
