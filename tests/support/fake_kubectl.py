"""A kubectl without a cluster: writes down what it is asked, and forwards ports to streams and figures of its own.

FAKE_KUBECTL_LOG is where it writes, each command with the number of streams that are open at that moment. Streams stay
open until their pod has been told to stop, and has said how many it has. FAKE_KUBECTL_FAULT is what
goes wrong: a verb that fails, `unready`, `refused`, `cut`, or `over`, which is streams that have ended by then.
"""

import json
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

FAULT = os.environ.get("FAKE_KUBECTL_FAULT", "")
LOG = Path(os.environ["FAKE_KUBECTL_LOG"])
# What the processes of one run know of each other: how many streams are open, and that the pod was deleted.
OPEN, DELETED = LOG.with_name("open"), LOG.with_name("deleted")
# No stream waits for longer, should nobody look.
WAIT_SECONDS_MAX = 60.0
SHORT_SECONDS = 0.2
_lock = threading.Lock()
# Somebody was told how many streams are open behind the signal to stop.
_seen = threading.Event()


def streams_open() -> int:
    return int(OPEN.read_text() or 0) if OPEN.exists() else 0


def stopping() -> bool:
    """The pod was told to, without a pause; or, where that is the fault, only when its last stream was over."""
    return DELETED.exists() and not (FAULT == "over" and streams_open())


def count(change: int) -> None:
    with _lock:
        made = OPEN.with_suffix(".new")
        made.write_text(str(streams_open() + change))
        made.rename(OPEN)


@contextmanager
def counted() -> Iterator[None]:
    """One stream, as others see it."""
    count(1)
    try:
        yield
    finally:
        count(-1)


class Pod(BaseHTTPRequestHandler):
    """Both of its ports in one."""

    def do_GET(self) -> None:
        """The figures, as the exporter gives them."""
        word = "true" if stopping() else "false"
        self.send_response(200)
        self.end_headers()
        self.wfile.write(
            f"# HELP sluice_active_streams Generations.\n# TYPE sluice_active_streams gauge\n"
            f'sluice_active_streams{{draining="{word}"}} {streams_open()}.0\n'.encode()
        )
        if word == "true":
            _seen.set()

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        tokens = asked["simulator"]["tokens"]
        self.send_response(503 if FAULT == "refused" else 200)
        self.end_headers()
        if FAULT == "refused":
            return
        with counted():
            self.wfile.write(b"event: token\ndata: {}\n\n")
            self._wait()
        self.wfile.write(b"event: token\ndata: {}\n\n" * (tokens // 2 if FAULT == "cut" else tokens - 1))
        if FAULT != "cut":
            self.wfile.write(b"event: done\ndata: {}\n\n")

    def log_message(self, *_: object) -> None:
        """Nobody reads it."""

    def _wait(self) -> None:
        if FAULT == "over":
            time.sleep(SHORT_SECONDS)
        else:
            _seen.wait(WAIT_SECONDS_MAX)


class Server(ThreadingHTTPServer):
    """Takes as many connections at once as are asked for."""

    request_queue_size = 128


def pods() -> str:
    status = "False" if FAULT == "unready" else "True"
    leaving = {
        "metadata": {"name": "old", "deletionTimestamp": "now"},
        "status": {"conditions": [{"type": "Ready", "status": "True"}]},
    }
    serving = {"metadata": {"name": "new"}, "status": {"conditions": [{"type": "Ready", "status": status}]}}
    return json.dumps({"items": [leaving, serving]})


def deletion() -> str:
    """When the pod was told to go; at the second time that this is asked, as its successor takes a moment."""
    asked = [line for line in LOG.read_text().splitlines() if "deletionTimestamp" in line]
    if len(asked) < 2:
        return ""
    DELETED.touch()
    return "2030-01-01T00:00:00Z"


def main(words: list[str]) -> int:
    with LOG.open("a") as log:
        log.write(json.dumps({"words": words, "open": streams_open()}) + "\n")
    asked = next(word for word in words if word in ("create", "apply", "rollout", "get", "port-forward", "delete"))
    if asked == FAULT:
        print(f"error: {asked} was refused", file=sys.stderr)
        return 1
    if asked == "get":
        print(pods() if "pods" in words else deletion(), end="")
    if asked == "port-forward":
        server = Server(("127.0.0.1", 0), Pod)
        for port in (8080, 9464):
            print(f"Forwarding from 127.0.0.1:{server.server_port} -> {port}", flush=True)
        server.serve_forever()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
