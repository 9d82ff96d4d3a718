"""The whole chain as `make run` starts it: NGINX, Gunicorn's workers and the exporter, on free ports of their own."""

import contextlib
import os
import random
import signal
import socket
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil

from tests.support.launched import Launched

READY_SECONDS_MAX = 60.0
# Of a test process, below those that Linux gives to connections (ip_local_port_range).
PORTS = 2_500
PORT_RANGES = 8


def free_port() -> int:
    """A port that was free a moment ago, and that no connection gets by chance: the system gives out higher ones.

    Each of several test processes looks among its own, so that none finds what another is just about to use.
    """
    process = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    first = 10_000 + process % PORT_RANGES * PORTS
    for port in random.sample(range(first, first + PORTS), PORTS):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise AssertionError(f"no free port from {first} on")


class Chain(Launched):
    """A running Sluice. Leaving it drains.

    Args:
        env: what to add to the environment: `SLUICE_CONFIG` and the like. The caller's own settings do not reach it.
        workers: Gunicorn's workers.
        command: what starts it.
        expect_ready: wait for it; a chain that ends before is an AssertionError that shows its log.
    """

    STOP_SIGNAL = signal.SIGINT  # as Ctrl-C does

    def __init__(
        self,
        env: Mapping[str, str] | None = None,
        *,
        workers: int = 2,
        expect_ready: bool = True,
        command: Sequence[str] = (sys.executable, "-m", "deploy.run"),
    ) -> None:
        super().__init__(command)
        self.port, self.metrics_port = free_port(), free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.metrics_url = f"http://127.0.0.1:{self.metrics_port}"
        self._expect_ready = expect_ready
        self.env |= {
            "PORT": str(self.port),
            "WORKERS": str(workers),
            "SLUICE_METRICS_BIND": f"127.0.0.1:{self.metrics_port}",
            **(env or {}),
        }
        self.state_dir = Path(self.env["SLUICE_STATE_DIR"])

    def _wait_until_ready(self) -> None:
        if self._expect_ready:
            self.wait_for("sluice is ready", READY_SECONDS_MAX)

    @property
    def pid(self) -> int:
        """Of `deploy.run`, the process to send signals to."""
        return self.process.pid

    @property
    def access_log(self) -> str:
        """NGINX's log: a JSON line for each request, with what is no UTF-8 of a client's replaced."""
        return (self.state_dir / "nginx" / "access.log").read_text(errors="replace")

    def gunicorn_pid(self) -> int:
        """Of Gunicorn's master."""
        return self._master("gunicorn.conf.py")

    def nginx_pid(self) -> int:
        """Of NGINX's master."""
        return self._master("nginx.conf", "nginx: master")

    def worker_pids(self) -> list[int]:
        """Of Gunicorn's workers, the oldest first."""
        workers = psutil.Process(self.gunicorn_pid()).children()
        return [worker.pid for worker in sorted(workers, key=lambda worker: (worker.create_time(), worker.pid))]

    def _master(self, *marks: str) -> int:
        supervisor = next(process for process in self.processes() if process.ppid() == self.pid)
        for process in supervisor.children():
            with contextlib.suppress(psutil.Error):  # it may end while we look
                if any(mark in " ".join(process.cmdline()) for mark in marks):
                    return int(process.pid)
        raise AssertionError(f"no process with {marks}:\n{self.log}")
