"""Serves metrics and the workers' heartbeats in a process of its own: rendering must not hold a stream.

`/metrics` for Prometheus; `/livez` says whether every worker's event loop turns, by the file that each touches once a
second beside its socket. It asks no worker anything, so that a hung one cannot hang the probe.
"""

import json
import os
import socket
import sys
import time
from collections.abc import Iterable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

from prometheus_client import CollectorRegistry, Metric
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.multiprocess import MultiProcessCollector

from app.settings import Settings, SettingsError, load_settings
from app.version import VERSION

# Gunicorn's own watchdog ends a worker after this time (`timeout`): later, the probe would only repeat it.
BEAT_AGE_SECONDS_MAX = 30.0
# A client that is silent for this long loses its thread.
CLIENT_SECONDS_MAX = 5.0


class BuildInfo:
    """What runs here. A collector, as a `Gauge` would turn into a file per process in multiprocess mode."""

    def collect(self) -> Iterable[Metric]:
        info = GaugeMetricFamily("sluice_build_info", "Version that runs, as a label; always 1.", labels=["version"])
        info.add_metric([VERSION], 1)
        yield info


def build_registry(multiprocess_dir: str | None) -> CollectorRegistry:
    """Everything that is served; with a folder, what the workers keep in its files."""
    registry = CollectorRegistry()
    registry.register(BuildInfo())
    if multiprocess_dir:
        MultiProcessCollector(registry, path=multiprocess_dir)  # type: ignore[no-untyped-call]
    return registry


def stale_slots(socket_dir: Path | None, workers: int, now: float) -> list[int]:
    """The slots whose worker has given no sign of life for too long, or never."""
    if socket_dir is None:
        return []

    # A worker that has only just made its socket has yet to beat.
    def seen_at(slot: int) -> float:
        return max(_changed_at(socket_dir / f"worker-{slot}.{kind}") for kind in ("beat", "sock"))

    return [slot for slot in range(1, workers + 1) if now - seen_at(slot) > BEAT_AGE_SECONDS_MAX]


def _changed_at(file: Path) -> float:
    try:
        return file.stat().st_mtime
    except FileNotFoundError:
        return 0.0


class Handler(BaseHTTPRequestHandler):
    """Bound by `serve` to what it serves."""

    registry: CollectorRegistry
    socket_dir: Path | None
    workers: int

    timeout = CLIENT_SECONDS_MAX
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "sluice", ""

    def do_GET(self) -> None:
        match urlsplit(self.path).path:
            case "/metrics":
                encode, content_type = choose_encoder(self.headers.get("Accept", ""))
                self._answer(200, content_type, encode(self.registry))
            case "/livez":
                stale = stale_slots(self.socket_dir, self.workers, time.time())
                self._answer_json(503 if stale else 200, {"status": "stale" if stale else "ok", "stale_slots": stale})
            case _:
                self._answer_json(404, {"error": {"code": "not_found", "message": "Try /metrics or /livez."}})

    def log_message(self, *_: object) -> None:
        """Scrapes every few seconds are not worth a line."""

    def _answer_json(self, status: int, body: dict[str, object]) -> None:
        self._answer(status, "application/json", json.dumps(body).encode())

    def _answer(self, status: int, content_type: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
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
            "registry": build_registry(os.environ.get("PROMETHEUS_MULTIPROC_DIR")),
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
