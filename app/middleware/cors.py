"""Which other sites' scripts may read our answers: none, unless an operator names them."""

from collections.abc import Sequence

from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp

# A script sees no other header of ours but a few like Content-Type.
EXPOSED = (
    "X-Stream-Id",
    "X-Request-ID",
    "Request-Id",
    "Retry-After",
    "RateLimit",
    "RateLimit-Policy",
    "X-RateLimit-Limit",
    "X-RateLimit-Remaining",
    "X-Process-Time",
    "Location",
    "Link",
    "Deprecation",
    "Sunset",
)
PREFLIGHT_SECONDS = 600


class SitesMiddleware(CORSMiddleware):
    """Starlette's, with what holds for this API.

    Args:
        origins: as browsers say them, or `*`.
        credentials: whether browsers send cookies and the like along. Nothing here asks for any; a proxy in front may.
    """

    def __init__(self, app: ASGIApp, origins: Sequence[str], credentials: bool) -> None:
        super().__init__(
            app,
            allow_origins=origins,
            allow_credentials=credentials,
            allow_methods=("GET", "HEAD", "POST", "DELETE"),
            # Whoever may ask at all may say what he likes: the vendors' SDKs send a dozen headers of their own.
            allow_headers=("*",),
            expose_headers=EXPOSED,
            max_age=PREFLIGHT_SECONDS,
        )
