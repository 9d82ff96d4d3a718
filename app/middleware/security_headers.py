"""What every answer tells browsers not to do with it, unless it says otherwise itself, as pages do."""

from starlette.types import ASGIApp, Message, Receive, Scope, Send

# Made once. https://cheatsheetseries.owasp.org/cheatsheets/REST_Security_Cheat_Sheet.html#security-headers
HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    # An answer that a browser shows as a page, for whatever reason, runs and loads nothing.
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"x-frame-options", b"DENY"),
    # A URL may hold a prompt.
    (b"referrer-policy", b"no-referrer"),
    # Scripts of other sites that were allowed to ask may read it all the same: this is for those that only embed it.
    (b"cross-origin-resource-policy", b"same-origin"),
    # It is one caller's. A stream's own is stricter.
    (b"cache-control", b"no-store"),
)


class SecurityHeadersMiddleware:
    """Adds those that an answer does not have."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                own = message.get("headers", ())
                names = {name for name, _ in own}
                message["headers"] = [*own, *(header for header in HEADERS if header[0] not in names)]
            await send(message)

        await self._app(scope, receive, send_with_headers)
