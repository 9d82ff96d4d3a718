"""Gunicorn's configuration: what differs from its defaults, and why. Also the hooks that give each worker its slot."""

import sys

from app.catalog import CatalogError, load_catalog
from app.observability.logging import GunicornLogger
from app.settings import SettingsError, load_settings
from app.slots import Slots
from app.worker import CANCEL_SECONDS, FAREWELL_SECONDS, SUCCESSOR_SECONDS, SluiceWorker

try:
    settings = load_settings()
    load_catalog(settings.config)
except (SettingsError, CatalogError) as error:
    sys.exit(f"sluice: {error}")

wsgi_app = "app.main:create_app()"
worker_class = SluiceWorker
workers = settings.workers

# With a socket for each worker the master listens nowhere.
bind = [] if settings.socket_dir else [settings.bind]
SluiceWorker.drain_seconds = settings.drain_seconds
SluiceWorker.slots = Slots(settings.socket_dir, settings.workers) if settings.socket_dir else None

# Only a watchdog of the event loop: the worker beats once a second, whatever its streams do. Gunicorn's default.
timeout = 30

# After this Gunicorn kills. It must outlast every bounded step of the worker's own drain.
graceful_timeout = int(settings.drain_seconds + SUCCESSOR_SECONDS + FAREWELL_SECONDS + CANCEL_SECONDS + 3)

# Longer than NGINX's upstream keepalive_timeout (30 s), so that NGINX closes idle connections and never meets one that
# we are closing; not by much, since Uvicorn keeps a reset connection's memory for as long.
keepalive = 40

# The heartbeat's file in memory: on a slow or read-only disk the watchdog would see a worker hang that does not.
worker_tmp_dir = "/dev/shm"  # noqa: S108

# Connections that wait for a busy worker's accept; kernel's net.core.somaxconn caps it.
backlog = 2048

# No control socket: signals do, and a read-only container has no place for it.
control_socket_disable = True

logger_class = GunicornLogger
loglevel = settings.log_level


def pre_fork(server, worker):
    """Give the worker a free slot, or that of the oldest one, which it follows in a reload."""
    if worker.slots:
        held: dict[int, int] = {}
        for other in server.WORKERS.values():
            held[other.slot] = max(held.get(other.slot, 0), other.age)
        worker.slot = worker.slots.assign(worker.age, held)
