"""`make run`: NGINX, Gunicorn and the exporter in the foreground, under supervisor. Run as `python -m deploy.run`.

Owns the order of things and what is said about them. Says in one line why it cannot start, ends with 0 after Ctrl-C,
and leaves no process, socket or pid file behind. If it is killed itself, the kernel tells supervisor to stop; with
`--with-parent`, it stops when its parent ends: a killed `make` would otherwise leave it running unseen.
"""

import fcntl
import os
import resource
import signal
import sys
import threading
import time
from pathlib import Path

from app.catalog import CatalogError, load_catalog
from app.settings import Settings, SettingsError, load_settings
from deploy import preflight, processes
from deploy.instance import Failed, Instance, worker_sockets
from deploy.preflight import Refused

READY_POLL_SECONDS = 0.05
READY_SECONDS_MAX = 60.0
WATCH_SECONDS = 0.5
LOG_CHECK_SECONDS = 60.0
# `timeout` and others signal us and then our group: only a later signal is a person who has waited long enough.
SECOND_SIGNAL_SECONDS_MIN = 0.5
FILES_MAX = 65_536

READY = """
sluice is ready

  {url}          NGINX, before {workers} Gunicorn workers on {sockets}
  {url}/playground  a page to watch a stream on, and to cut it
  {url}/docs     the API, to read and to try
  http://{metrics}/metrics  metrics; /livez for the workers' heartbeats

Watch a stream:

  curl -N {url}/api/v1/generate -H 'Content-Type: application/json' \\
    -d '{{"prompt": "Hello", "stream": true}}'

Ctrl-C drains: open streams get up to {drain:g} s to finish. Logs of NGINX: {prefix}
"""


class Requests:
    """Counts the requests to stop: Ctrl-C, TERM, a terminal that closes."""

    def __init__(self) -> None:
        self._first_at: float | None = None
        self._stop = threading.Event()
        self._parent, self._parent_catches = 0, False
        self.at_once = False
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._caught)
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # `nohup` asks to survive it
            signal.signal(signal.SIGHUP, self._caught)

    def end_with_parent(self) -> None:
        """Takes the end of our parent, `make`, for a request, and a Ctrl-C that only it has got.

        It does not pass that on; it takes its handler off and waits for us.
        """
        self._parent = os.getppid()
        self._parent_catches = processes.catches(self._parent, signal.SIGINT)
        processes.die_with(self._parent)

    @property
    def stop(self) -> bool:
        parent_stops = self._parent_catches and not processes.catches(self._parent, signal.SIGINT)
        return self._stop.is_set() or parent_stops

    def wait(self, seconds: float) -> None:
        """Sleeps, unless a request comes."""
        self._stop.wait(seconds)

    def _caught(self, *_: object) -> None:
        now = time.monotonic()
        if self._first_at is None:
            self._first_at = now
            self._stop.set()
        elif now - self._first_at >= SECOND_SIGNAL_SECONDS_MIN:
            self.at_once = True


def load() -> Settings:
    """The settings, once they and the models are known to be good: Gunicorn would fail on them less clearly."""
    try:
        settings = load_settings()
        load_catalog(settings.config)
    except (SettingsError, CatalogError) as error:
        raise Refused(str(error), status=2) from None
    return settings


def take(state_dir: Path) -> int:
    """The lock on the state folder; the kernel gives it back however its holders end."""
    preflight.usable_state_dir(state_dir)
    lock = os.open(state_dir / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        raise Refused(
            f"another instance runs on {state_dir} (process {os.read(lock, 20).decode() or 'unknown'}): stop it, or "
            "run this one beside it: SLUICE_STATE_DIR=… PORT=… SLUICE_METRICS_BIND=… make run"
        ) from None
    os.truncate(lock, 0)
    os.write(lock, str(os.getpid()).encode())
    return lock


def check_ports(settings: Settings) -> None:
    preflight.port_is_free("PORT", settings.host, settings.port, f"PORT={settings.port % 65_535 + 1} make run")
    if settings.tls_certificate:
        other = f"SLUICE_TLS_PORT={settings.tls_port % 65_535 + 1} make run"
        preflight.port_is_free("SLUICE_TLS_PORT", settings.host, settings.tls_port, other)
    host, port = preflight.split_address("SLUICE_METRICS_BIND", settings.metrics_bind)
    other = f"{settings.metrics_bind.rpartition(':')[0]}:{port % 65_535 + 1}"
    preflight.port_is_free("SLUICE_METRICS_BIND", host, port, f"SLUICE_METRICS_BIND={other} make run")


def raise_file_limit() -> None:
    """Each stream takes up to four descriptors, and shells allow 1024."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = FILES_MAX if hard == resource.RLIM_INFINITY else min(hard, FILES_MAX)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def wait_until_ready(instance: Instance, requests: Requests) -> None:
    deadline = time.monotonic() + READY_SECONDS_MAX
    while not requests.stop:
        instance.check(starting=True)
        if instance.is_ready():
            settings = instance.settings
            instance.relay.say(
                READY.format(
                    url=instance.url,
                    workers=settings.workers,
                    sockets=instance.run_dir / "worker-*.sock",
                    metrics=settings.metrics_bind,
                    drain=settings.drain_seconds,
                    prefix=instance.prefix,
                )
            )
            return
        if time.monotonic() > deadline:
            raise Failed(f"not ready after {READY_SECONDS_MAX:g} s; the log is above")
        requests.wait(READY_POLL_SECONDS)


def watch(instance: Instance, requests: Requests) -> None:
    log_check_at = time.monotonic()
    while not requests.stop:
        instance.check(starting=False)
        if time.monotonic() >= log_check_at:
            instance.limit_logs()
            log_check_at += LOG_CHECK_SECONDS
        requests.wait(WATCH_SECONDS)
    instance.relay.say(
        f"\nsluice: stopping; open streams get up to {instance.settings.drain_seconds:g} s. Ctrl-C again stops at once."
    )


def main() -> None:
    requests = Requests()
    if "--with-parent" in sys.argv[1:]:
        requests.end_with_parent()
    settings = load()
    preflight.socket_paths_fit(worker_sockets(settings))
    lock = take(settings.state_dir.resolve())
    check_ports(settings)
    raise_file_limit()
    instance = Instance(settings, preflight.find_nginx())
    instance.prepare()
    instance.start(lock)
    try:
        wait_until_ready(instance, requests)
        watch(instance, requests)
    finally:
        instance.stop(lambda: requests.at_once)


if __name__ == "__main__":
    try:
        main()
    except SettingsError as error:
        print(f"sluice: {error}", file=sys.stderr)
        sys.exit(2)
    except Refused as refused:
        print(f"sluice: {refused}", file=sys.stderr)
        sys.exit(refused.status)
    except Failed as failed:
        print(f"sluice: {failed}", file=sys.stderr)
        sys.exit(1)
