"""One running Sluice: its folders, its supervisor, and its life from start to stop."""

import contextlib
import http.client
import math
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from app.settings import Settings
from app.timeouts import ledger
from deploy import memory, preflight, processes
from deploy.edge import Edge, url
from deploy.relay import Relay
from deploy.supervisor_client import Supervisor

HOME = Path(__file__).resolve().parent.parent
LOG_BYTES_MAX = 64 * 1024 * 1024
READY_CALL_SECONDS_MAX = 2.0
OUTPUT_SECONDS_MAX = 2.0

# What supervisor needs for itself, once its programs have stopped.
SUPERVISOR_STOP_SECONDS = 5


class Failed(Exception):
    """A program does not run; the message is one line."""


class Instance:
    """Call `prepare`, `start`, `check` again and again, then `stop`, whatever happened."""

    def __init__(self, settings: Settings, nginx: str) -> None:
        self.settings = settings
        self.state_dir = settings.state_dir.resolve()
        self.run_dir = self.state_dir / "run"
        self.prefix = self.state_dir / "nginx"
        self._in_memory = None if settings.metrics_dir else memory.folder_of(self.state_dir)
        self.metrics_dir = settings.metrics_dir or self._in_memory or settings.metrics_path
        self.sockets = worker_sockets(settings)
        self.metrics_address = preflight.split_address("SLUICE_METRICS_BIND", settings.metrics_bind)
        self.url = url(settings)
        self._edge = Edge(settings, nginx, self.prefix, self.run_dir / "ops.sock", self.sockets)
        self._supervisor = Supervisor(self.run_dir / "supervisor.sock")
        self._gunicorn_pid = 0
        self._told: set[int] = set()

    def prepare(self) -> None:
        """Writes the configuration; what an earlier run may have left is removed."""
        self._remove_traces()
        self.run_dir.mkdir(mode=0o700)
        self.metrics_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        if self._in_memory is not None:
            memory.mark(self._in_memory, self.state_dir)
        memory.sweep()
        self._edge.prepare()

    def start(self, lock: int) -> None:
        processes.adopt_orphans()
        reader, writer = os.pipe()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "supervisor.supervisord", "-c", str(HOME / "deploy/supervisord.conf")]
            + (["-u", "root"] if os.geteuid() == 0 else []),
            cwd=HOME,
            env=os.environ | self._environment(),
            # As its input, the lock is held until the last program has stopped, even if we are killed.
            stdin=lock,
            stdout=writer,
            stderr=writer,
            # A session of its own: Ctrl-C reaches us alone, and we stop the programs in order.
            start_new_session=True,
            preexec_fn=processes.die_with_parent(),  # noqa: PLW1509 - no thread runs yet
        )
        os.close(writer)
        self.relay = Relay(reader, sys.stdout.fileno())

    def is_ready(self) -> bool:
        """Every worker has its socket, the exporter listens, and a request through NGINX says ready: on its ops socket,
        since on the port it may answer by TLS alone, and for some hosts alone."""
        if not all(path.exists() for path in self.sockets):
            return False
        try:
            socket.create_connection(self.metrics_address, READY_CALL_SECONDS_MAX).close()
            with socket.socket(socket.AF_UNIX) as client:
                client.settimeout(READY_CALL_SECONDS_MAX)
                client.connect(str(self.run_dir / "ops.sock"))
                client.sendall(b"GET /readyz HTTP/1.1\r\nHost: sluice\r\nConnection: close\r\n\r\n")
                answer = http.client.HTTPResponse(client)
                answer.begin()
        except (OSError, http.client.HTTPException):
            return False
        return answer.status == http.client.OK

    def check(self, *, starting: bool) -> None:
        """Looks once whether all is well.

        Raises:
            Failed: a program cannot be kept running, or, while `starting`, did not come up at the first attempt.
        """
        if self._process.pid in processes.reap():
            raise Failed("supervisor ended; stopping what it ran")
        self._end_orphans()
        for program in self._supervisor.programs():
            again = program.state == "BACKOFF"
            if program.name == "gunicorn" and program.pid:
                again = again or self._gunicorn_pid not in (0, program.pid)
                self._gunicorn_pid = program.pid
            if program.state == "FATAL" or (starting and again):
                raise Failed(f"{program.name} does not start; its own words are above")

    def limit_logs(self) -> None:
        """Keeps each of NGINX's logs and one before it, so that they never fill the disk."""
        full = [log for log in self.prefix.glob("*.log") if log.stat().st_size > LOG_BYTES_MAX]
        for log in full:
            log.replace(log.with_suffix(".log.1"))
        if full:  # NGINX, unless it is just being restarted, opens its logs anew
            with contextlib.suppress(FileNotFoundError):
                processes.send(int((self.prefix / "nginx.pid").read_text()), signal.SIGUSR1)

    def stop(self, at_once: Callable[[], bool]) -> None:
        """Ends everything in order; at the deadline, or when `at_once` says so, by force."""
        processes.send(self._process.pid, signal.SIGTERM)
        others_seconds = ledger()["nginx_stop_seconds"] + ledger()["exporter_stop_seconds"] + SUPERVISOR_STOP_SECONDS
        deadline = time.monotonic() + self._gunicorn_stop_seconds() + others_seconds
        while processes.descendants() and time.monotonic() < deadline and not at_once():
            processes.reap()
            self._end_orphans()
            self._supervisor.programs()  # wakes it: without, each step may take a second
            time.sleep(0.05)
        processes.kill_all()
        self.relay.finish(OUTPUT_SECONDS_MAX)
        self._remove_traces()

    def _end_orphans(self) -> None:
        """What is ours without being supervisor has lost its master, killed: nobody else will ever stop it.

        NGINX's processes would keep the port from the next master; Gunicorn's workers finish their streams first.
        """
        for pid in processes.children() - self._told - {self._process.pid}:
            self._told.add(pid)
            processes.send(pid, signal.SIGTERM)

    def _gunicorn_stop_seconds(self) -> float:
        return self.settings.derived_waits()["gunicorn_stop_seconds"]

    def _remove_traces(self) -> None:
        shutil.rmtree(self.run_dir, ignore_errors=True)
        if self.settings.metrics_dir is None:  # in a folder of the operator's may be anything
            shutil.rmtree(self.metrics_dir, ignore_errors=True)
        (self.prefix / "nginx.pid").unlink(missing_ok=True)

    def _environment(self) -> dict[str, str]:
        config = {"SLUICE_CONFIG": str(self.settings.config.resolve())} if self.settings.config else {}
        return config | {
            "SLUICE_STATE_DIR": str(self.state_dir),
            "SLUICE_SOCKET_DIR": str(self.run_dir),
            "SLUICE_METRICS_DIR": str(self.metrics_dir),
            # As we counted, so that NGINX's list of sockets and the workers agree.
            "WORKERS": str(self.settings.workers),
            "PYTHONUNBUFFERED": "1",
            "RUN_STATE_DIR": str(self.state_dir),
            "RUN_PYTHON": sys.executable,
            "RUN_NGINX": shlex.join([*self._edge.addresses, "--", *self._edge.command]),
            "RUN_GUNICORN_STOP_SECONDS": str(math.ceil(self._gunicorn_stop_seconds())),
        }


def worker_sockets(settings: Settings) -> list[Path]:
    """Where the workers will listen."""
    folder = settings.state_dir.resolve() / "run"
    return [folder / f"worker-{slot}.sock" for slot in range(1, settings.workers + 1)]
