"""An identity provider's key set over HTTP, for servers that fetch it."""

from http.server import BaseHTTPRequestHandler

from tests.support.loopback_server import LoopbackServer
from tests.support.tokens import jwks


class KeyServer(LoopbackServer):
    """Use as a context manager. `content` is what it serves, `asked` how often it was asked for it."""

    def __init__(self) -> None:
        self.content = jwks()
        self.asked = 0
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.asked += 1
                self.send_response(200)
                self.send_header("Content-Length", str(len(outer.content)))
                self.end_headers()
                self.wfile.write(outer.content)

            def log_message(self, *_: object) -> None:
                """Nothing."""

        super().__init__(Handler)
        self.url += "/keys"
