"""A kubectl without a cluster: writes down what it is asked, and forwards a port to streams of its own.

FAKE_KUBECTL_LOG is where it writes; FAKE_KUBECTL_FAULT is what goes wrong: a verb that fails, `cut` or `unready`.
"""

import json
import os
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

FAULT = os.environ.get("FAKE_KUBECTL_FAULT", "")


class Streams(BaseHTTPRequestHandler):
    """All tokens at once, or half of them."""

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        tokens = asked["simulator"]["tokens"] // (2 if FAULT == "cut" else 1)
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"event: token\ndata: {}\n\n" * tokens)
        if FAULT != "cut":
            self.wfile.write(b"event: done\ndata: {}\n\n")

    def log_message(self, *_: object) -> None:
        """Nobody reads it."""


class Server(ThreadingHTTPServer):
    """Takes as many connections at once as are asked for."""

    request_queue_size = 128


def main(words: list[str]) -> int:
    with Path(os.environ["FAKE_KUBECTL_LOG"]).open("a") as log:
        log.write(json.dumps(words) + "\n")
    asked = next(word for word in words if word in ("create", "apply", "rollout", "get", "port-forward", "delete"))
    if asked == FAULT:
        print(f"error: {asked} was refused", file=sys.stderr)
        return 1
    if asked == "get":
        status = "False" if FAULT == "unready" else "True"
        leaving = {
            "metadata": {"name": "old", "deletionTimestamp": "now"},
            "status": {"conditions": [{"type": "Ready", "status": "True"}]},
        }
        serving = {"metadata": {"name": "new"}, "status": {"conditions": [{"type": "Ready", "status": status}]}}
        print(json.dumps({"items": [leaving, serving]}))
    if asked == "port-forward":
        server = Server(("127.0.0.1", 0), Streams)
        print(f"Forwarding from 127.0.0.1:{server.server_port} -> 8080", flush=True)
        server.serve_forever()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
