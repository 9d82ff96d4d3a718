"""The whole chain as `make run` starts it: NGINX, Gunicorn's workers and the exporter, on free ports of their own."""

import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

import psutil

from deploy.processes import die_with_parent

HOME = Path(__file__).resolve().parents[2]
POLL_SECONDS = 0.05
READY_SECONDS_MAX = 60.0
STOP_SECONDS_MAX = 30.0
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


class Chain:
    """A running Sluice. Use as a context manager; leaving it drains, stops everything and removes the state folder.

    Args:
        env: what to add to the environment: `SLUICE_CONFIG` and the like. The caller's own settings do not reach it.
        workers: Gunicorn's workers.
        command: what starts it.
        expect_ready: wait for it; a chain that ends before is an AssertionError that shows its log.
    """

    def __init__(
        self,
        env: Mapping[str, str] | None = None,
        *,
        workers: int = 2,
        expect_ready: bool = True,
        command: Sequence[str] = (sys.executable, "-m", "deploy.run"),
    ) -> None:
        self.port, self.metrics_port = free_port(), free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.metrics_url = f"http://127.0.0.1:{self.metrics_port}"
        # Directly below /tmp: a Unix socket's path is short, and pytest's folders are not.
        self._folder = Path(tempfile.mkdtemp(prefix="sluice-", dir="/tmp"))
        self._log = self._folder / "log"
        self._expect_ready, self._command = expect_ready, command
        inherited = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith("SLUICE_") and name not in ("PORT", "WORKERS")
        }
        self.env = inherited | {
            "PORT": str(self.port),
            "WORKERS": str(workers),
            "SLUICE_METRICS_BIND": f"127.0.0.1:{self.metrics_port}",
            "SLUICE_STATE_DIR": str(self._folder / "state"),
            "SLUICE_DRAIN_SECONDS": "5",
            "SLUICE_DRAIN_SPREAD_SECONDS": "0.5",
            **(env or {}),
        }
        self.state_dir = Path(self.env["SLUICE_STATE_DIR"])

    def __enter__(self) -> "Chain":
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                self._command,
                cwd=HOME,
                env=self.env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # A pytest that is killed takes its chain along.
                preexec_fn=die_with_parent(),  # noqa: PLW1509 - two system calls, no lock
            )
        if self._expect_ready:
            try:
                self.wait_for("sluice is ready", READY_SECONDS_MAX)
            except BaseException:
                self.__exit__(None, None, None)
                raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if self.process.poll() is None:
                self.stop()
        finally:
            self.kill_all()
            shutil.rmtree(self._folder, ignore_errors=True)

    @property
    def pid(self) -> int:
        """Of `deploy.run`, the process to send signals to."""
        return self.process.pid

    @property
    def log(self) -> str:
        """Everything that was written to the terminal so far."""
        return self._log.read_text(errors="replace")

    @property
    def access_log(self) -> str:
        """NGINX's log: a JSON line for each request."""
        return (self.state_dir / "nginx" / "access.log").read_text()

    def wait_for(self, text: str, seconds: float = 10.0) -> None:
        """Until the log holds `text`."""
        deadline = time.monotonic() + seconds
        while text not in self.log:
            assert self.process.poll() is None, f"ended with {self.process.returncode} before {text!r}:\n{self.log}"
            assert time.monotonic() < deadline, f"no {text!r} within {seconds} s:\n{self.log}"
            time.sleep(POLL_SECONDS)

    def processes(self) -> list[psutil.Process]:
        """Everything below and including `deploy.run`, alive or zombie."""
        try:
            top = psutil.Process(self.pid)
            return [top, *top.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

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

    def stop(self, number: signal.Signals = signal.SIGINT, seconds: float = STOP_SECONDS_MAX) -> int:
        """As Ctrl-C does; returns the exit code."""
        self.process.send_signal(number)
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"did not stop within {seconds} s:\n{self.log}") from None

    def kill_all(self) -> None:
        """What is left of a test that failed."""
        for process in self.processes():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self.process.wait()

    def _master(self, *marks: str) -> int:
        supervisor = next(process for process in self.processes() if process.ppid() == self.pid)
        for process in supervisor.children():
            with contextlib.suppress(psutil.Error):  # it may end while we look
                if any(mark in " ".join(process.cmdline()) for mark in marks):
                    return int(process.pid)
        raise AssertionError(f"no process with {marks}:\n{self.log}")
