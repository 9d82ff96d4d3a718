"""Serves metrics and the workers' heartbeats in a process of its own: rendering must not hold a stream.

`/metrics` for Prometheus; `/livez` says whether every worker's event loop turns, by the file that each touches once a
second beside its socket. It asks no worker anything, so that a hung one cannot hang the probe.
"""

import gzip
import json
import socket
import sys
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from app.observability.families import OwnFigures, WorkerFigures, beat_ages
from app.settings import Settings, SettingsError, load_settings

# Gunicorn's own watchdog ends a worker after this time (`timeout`): later, the probe would only repeat it.
BEAT_AGE_SECONDS_MAX = 30.0
# A client that is silent for this long loses its thread.
CLIENT_SECONDS_MAX = 5.0
GZIP_LEVEL = 3


def build_registry(settings: Settings) -> CollectorRegistry:
    """Everything that is served."""
    registry = CollectorRegistry()
    registry.register(WorkerFigures(settings.metrics_path))
    ages = partial(beat_ages, settings.socket_dir, settings.workers)
    # Gunicorn that runs alone has no NGINX before it.
    nginx_socket = settings.nginx_status_path if settings.socket_dir or settings.nginx_status else None
    registry.register(OwnFigures(settings.workers, ages, nginx_socket, settings.tls_certificate))
    return registry


def stale_slots(ages: Mapping[int, float]) -> list[int]:
    """The slots whose worker has given no sign of life for too long, or never."""
    return [slot for slot, age in ages.items() if age > BEAT_AGE_SECONDS_MAX]


class Handler(BaseHTTPRequestHandler):
    """Bound by `serve` to what it serves."""

    registry: CollectorRegistry
    socket_dir: Path | None
    workers: int

    timeout = CLIENT_SECONDS_MAX
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "sluice", ""

    def handle(self) -> None:
        # A scraper that gives up, since the machine is busy, is not worth a stack trace among the log lines.
        with suppress(ConnectionError):
            super().handle()

    def do_GET(self) -> None:
        match urlsplit(self.path).path:
            case "/metrics":
                encode, content_type = choose_encoder(self.headers.get("Accept", ""))
                self._answer(200, content_type, encode(self.registry), compress="gzip" in self._encodings)
            case "/livez":
                stale = stale_slots(beat_ages(self.socket_dir, self.workers))
                self._answer_json(503 if stale else 200, {"status": "stale" if stale else "ok", "stale_slots": stale})
            case _:
                self._answer_json(404, {"error": {"code": "not_found", "message": "Try /metrics or /livez."}})

    def log_message(self, *_: object) -> None:
        """Scrapes every few seconds are not worth a line."""

    def _answer_json(self, status: int, body: dict[str, object]) -> None:
        self._answer(status, "application/json", json.dumps(body).encode())

    @property
    def _encodings(self) -> str:
        return str(self.headers.get("Accept-Encoding", ""))

    def _answer(self, status: int, content_type: str, body: bytes, compress: bool = False) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        if compress:
            # A text of many lines that are nearly the same: a tenth of it is left.
            body = gzip.compress(body, GZIP_LEVEL)
            self.send_header("Content-Encoding", "gzip")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def make_server(settings: Settings) -> ThreadingHTTPServer:
    """Listens on `metrics_bind`.

    Raises:
        OSError: it is taken, or no address of this machine.
    """
    host, _, port = settings.metrics_bind.rpartition(":")
    bound = type(
        "BoundHandler",
        (Handler,),
        {
            "registry": build_registry(settings),
            "socket_dir": settings.socket_dir,
            "workers": settings.workers,
        },
    )
    family = socket.AF_INET6 if host.startswith("[") else socket.AF_INET
    server_class = type("Server", (ThreadingHTTPServer,), {"address_family": family})
    server: ThreadingHTTPServer = server_class((host.strip("[]"), int(port)), bound)
    return server


def main() -> None:
    try:
        settings = load_settings()
        server = make_server(settings)
    except SettingsError as error:
        sys.exit(f"sluice: {error}")
    except (OSError, ValueError, OverflowError) as error:
        sys.exit(f"sluice: SLUICE_METRICS_BIND: cannot listen on {settings.metrics_bind}: {error}")
    server.serve_forever()


if __name__ == "__main__":
    main()
