"""Which pages may open a WebSocket: browsers ask nobody before they open one, and send cookies along."""

from collections.abc import Collection
from urllib.parse import urlsplit

from starlette.datastructures import Headers

from app.errors import Forbidden


def check_origin(headers: Headers, allowed: Collection[str]) -> None:
    """Let in pages of this very host, those that are allowed, and whoever is no page.

    Args:
        allowed: origins, as `https://example.com`.

    Raises:
        Forbidden: it is another page.
    """
    origins = headers.getlist("origin")
    if not origins:
        return  # a browser always says where its page is from
    origin = origins[0].lower()
    # By host alone: whether TLS ended in front of us is not known here.
    same = urlsplit(origin).netloc == headers.get("host", "").lower() != ""
    if len(origins) > 1 or not (same or origin in allowed):
        raise Forbidden("Pages of this origin may not open sockets here.")
