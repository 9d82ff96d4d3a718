"""Which version of the native API is current, and how those before it are told that they will go.

`Deprecation` is RFC 9745's, `Sunset` RFC 8594's, `successor-version` RFC 5829's.
"""

from urllib.parse import quote

from app.scope import Headers

# What is the same in both versions is served under both of these.
VERSIONS = ("/api/v1", "/api/v2")
_DEPRECATED = b"@1795219200"  # 2026-11-21, when /api/v2 came
_SUNSET = b"Fri, 31 Dec 2027 23:59:59 GMT"
SUCCESSORS = {
    "/api/v1/chat": "/api/v2/chat",
    "/api/chat": "/api/v2/chat",
    "/api/chat/stream": "/api/v2/chat",
    "/api/v1/generate": "/api/v2/generate",
    "/api/generate": "/api/v2/generate",
    "/api/stream": "/api/v2/stream",
    "/api/v1/stream/generate": "/api/v2/generate",
    "/auth-status": "/api/v2/auth/status",
    "/ready": "/readyz",
}


def announcement(path: str) -> Headers:
    """The headers of a path that will go; none for one that stays."""
    successor = SUCCESSORS.get(path)
    return [] if successor is None else _announced(successor)


def socket_announcement(path: str) -> Headers:
    """The same of a WebSocket's."""
    # A part of it is anybody's, and headers are lines.
    return _announced(f"/api/v2{quote(path)}") if path.startswith("/ws/") else []


def _announced(successor: str) -> Headers:
    link = f'<{successor}>; rel="successor-version"'.encode()
    return [(b"deprecation", _DEPRECATED), (b"sunset", _SUNSET), (b"link", link)]
