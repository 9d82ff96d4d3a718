"""Gunicorn's configuration: what differs from its defaults, and why. Also the hooks that give each worker its slot."""

import sys

import structlog

from app.catalog import CatalogError, adopt, adopted, load_catalog
from app.entrance import adopt_credentials, adopted_credentials, read_credentials
from app.observability import places
from app.observability.logging import GunicornLogger
from app.pod import Pod
from app.settings import SettingsError, load_settings
from app.slots import Slots
from app.timeouts import ledger
from app.worker import SluiceWorker

try:
    settings = load_settings()
    adopt(load_catalog(settings.config))
except (SettingsError, CatalogError) as error:
    # A reload runs this file again: it must not end what runs.
    if not isinstance(error, CatalogError) or adopted() is None:
        sys.exit(f"sluice: {error}")
    structlog.get_logger("sluice").error("models file refused, the one before it stays in force", reason=str(error))

try:
    adopt_credentials(read_credentials(settings, adopted() or load_catalog(settings.config)))
except SettingsError as error:
    if adopted_credentials() is None:
        sys.exit(f"sluice: {error}")
    structlog.get_logger("sluice").error("credentials refused, those before them stay in force", reason=str(error))

# What is served, and by whom: Uvicorn, with a heartbeat that lasts through a drain and a drain that has an end.
wsgi_app = "app.main:create_app()"
worker_class = SluiceWorker
workers = settings.workers

# With a socket for each worker the master listens nowhere.
bind = [] if settings.socket_dir else [settings.bind]
# A worker is made by Gunicorn, which gives it nothing: what it needs of the settings stands on its class.
SluiceWorker.drain_seconds = settings.drain_seconds
SluiceWorker.metrics_dir = settings.metrics_path
SluiceWorker.CONFIG_KWARGS["ws_max_size"] = settings.socket_bytes_max
if settings.socket_dir:
    # A reload runs this file again: the workers before it and those after it have to share the same memory.
    SluiceWorker.slots = SluiceWorker.slots or Slots(settings.socket_dir, settings.workers)

# The numbers are those of deploy/timeouts.yaml. This one is only a watchdog of the event loop: the worker beats once a
# second, whatever its streams do.
timeout = int(ledger()["watchdog_seconds"])

# After this Gunicorn kills. It must outlast every bounded step of the worker's own drain.
graceful_timeout = int(settings.derived_waits()["kill_seconds"])

# Longer than NGINX's upstream keepalive_timeout (30 s), so that NGINX closes idle connections and never meets one that
# we are closing; not by much, since Uvicorn keeps a reset connection's memory for as long.
keepalive = int(ledger()["keepalive_seconds"])

# The heartbeat's file in memory: on a slow or read-only disk the watchdog would see a worker hang that does not.
worker_tmp_dir = "/dev/shm"  # noqa: S108

# Connections that wait for a busy worker's accept; kernel's net.core.somaxconn caps it.
backlog = 2048

# No control socket: signals do, and a read-only container has no place for it.
control_socket_disable = True

# Gunicorn's own lines in the one format, through the writer that never blocks.
logger_class = GunicornLogger
loglevel = settings.log_level


# The same memory after a reload, as with the slots.
pod = SluiceWorker.pod = SluiceWorker.pod or Pod()


def on_starting(_server):
    """Count from nothing, as every process that starts anew; what workers still hold that drain is theirs."""
    places.clear(settings.metrics_path)


def on_reload(server):
    """Forget an application that `preload_app` made: it is of the files as they were. New workers make their own."""
    server.app.callable = None


def when_ready(server):
    """Have the workers know when Gunicorn itself stops: they then keep their readers, since nobody else has room."""
    stop = server.stop

    def stop_all(graceful=True):
        pod.drain()
        stop(graceful)

    server.stop = stop_all
    manage_workers = server.manage_workers

    def manage_those_who_stay():
        """Workers that have served enough and drain hold no place any more, and no slot: Gunicorn would start another
        one in theirs only when they are gone, which takes as long as their last stream."""
        retiring.update({pid: worker for pid, worker in server.WORKERS.items() if pod.retires(worker.age)})
        for pid in retiring:
            del server.WORKERS[pid]
        try:
            manage_workers()
        finally:
            server.WORKERS.update(retiring)
            retiring.clear()

    server.manage_workers = manage_those_who_stay


# While workers are managed: those that do not count.
retiring = {}


def post_fork(_server, _worker):
    """Close what Gunicorn has its workers close of each other, also of those that it does not see."""
    for other in retiring.values():
        other.tmp.close()


def child_exit(_server, worker):
    """Have the other workers know: they take over what it produced at once, and not only when its lease is over."""
    pod.bury(worker.age)


def pre_fork(server, worker):
    """Give the worker a name and a free slot, or that of the oldest one, which it follows in a reload."""
    worker.identity = pod.identity(worker.age)
    worker.master_signals = server.SIG_QUEUE
    if worker.slots:
        held: dict[int, int] = {}
        for other in server.WORKERS.values():
            held[other.slot] = max(held.get(other.slot, 0), other.age)
        worker.slot = worker.slots.assign(worker.age, held)
