"""Gunicorn alone, with the product's configuration and what a test adds to it: its workers' life, without NGINX."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

from deploy.processes import die_with_parent
from tests.support.call import ask
from tests.support.chain import HOME, free_port

START_SECONDS_MAX = 60.0
STOP_SECONDS_MAX = 30.0
POLL_SECONDS = 0.05
# What a test wants to happen inside a worker, in the turn of the loop that gets the signal.
POKE = signal.SIGUSR2


class Gunicorn:
    """Listens on a port of its own; leaving it stops it and removes its folder.

    Args:
        env: what to add to the environment.
        conf: Python that follows the product's configuration.
        poke: Python that a worker runs when it gets `POKE`; `loop` is its event loop.
        command: what starts it; `{conf}` stands for the path of the configuration.
        stdout: where its output goes; by default into `log`.
    """

    def __init__(
        self,
        env: Mapping[str, str] | None = None,
        *,
        conf: str = "",
        poke: str = "",
        command: Sequence[str] = (sys.executable, "-m", "gunicorn", "-c", "{conf}"),
        stdout: int | None = None,
    ) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="sluice-", dir="/tmp"))
        self._conf = self.folder / "gunicorn.conf.py"
        self._conf.write_text(_derived(conf, poke))
        self._log = self.folder / "log"
        self._command = [part.format(conf=self._conf) for part in command]
        self._stdout = stdout
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("SLUICE_")}
        self.env = inherited | {
            "WORKERS": "1",
            "SLUICE_BIND": f"127.0.0.1:{port}",
            "SLUICE_STATE_DIR": str(self.folder / "state"),
            "SLUICE_DRAIN_SECONDS": "5",
            "SLUICE_DRAIN_SPREAD_SECONDS": "0.5",
            **(env or {}),
        }

    def __enter__(self) -> Self:
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                self._command,
                cwd=HOME,
                env=self.env,
                stdin=subprocess.DEVNULL,
                stdout=log if self._stdout is None else self._stdout,
                stderr=log if self._stdout is None else self._stdout,
                preexec_fn=die_with_parent(),  # noqa: PLW1509 - two system calls, no lock
            )
        try:
            self._wait_until_ready()
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
            self._kill_all()
            shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def log(self) -> str:
        """What it wrote so far."""
        return self._log.read_text(errors="replace")

    @property
    def master_pid(self) -> int:
        """Of Gunicorn's master, which a wrapper may have started."""
        top = psutil.Process(self.process.pid)
        found = [process for process in [top, *top.children(recursive=True)] if "gunicorn" in process.cmdline()]
        return int(found[0].pid)

    def worker_pids(self) -> list[int]:
        """Of the workers, the oldest first."""
        workers = psutil.Process(self.master_pid).children()
        return [worker.pid for worker in sorted(workers, key=lambda worker: (worker.create_time(), worker.pid))]

    def poke(self) -> None:
        """Have the first worker run what it was given to run."""
        os.kill(self.worker_pids()[0], POKE)

    def wait_for(self, text: str, seconds: float = 10.0) -> None:
        """Until the log holds `text`."""
        deadline = time.monotonic() + seconds
        while text not in self.log:
            assert time.monotonic() < deadline, f"no {text!r} within {seconds} s:\n{self.log}"
            time.sleep(POLL_SECONDS)

    def stop(self, number: signal.Signals = signal.SIGTERM, seconds: float = STOP_SECONDS_MAX) -> int:
        """Signal what was started; returns its exit code."""
        self.process.send_signal(number)
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"did not stop within {seconds} s:\n{self.log}") from None

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + START_SECONDS_MAX
        while True:
            assert self.process.poll() is None, f"ended with {self.process.returncode}:\n{self.log}"
            assert time.monotonic() < deadline, f"not ready within {START_SECONDS_MAX} s:\n{self.log}"
            with contextlib.suppress(OSError, AssertionError):
                if ask(self.url, "/readyz").status == 200:
                    return
            time.sleep(POLL_SECONDS)

    def _kill_all(self) -> None:
        with contextlib.suppress(psutil.NoSuchProcess):
            top = psutil.Process(self.process.pid)
            for process in [*top.children(recursive=True), top]:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
        self.process.wait()


def _derived(conf: str, poke: str) -> str:
    shipped = HOME / "deploy" / "gunicorn.conf.py"
    lines = [f"exec(compile(open({str(shipped)!r}).read(), {str(shipped)!r}, 'exec'))", conf]
    if poke:
        lines += [
            "import asyncio, signal, time",
            "def poked(loop):",
            *(f"    {line}" for line in poke.strip().splitlines()),
            "def on_signal(*_):",
            "    loop = asyncio.get_running_loop()",
            "    loop.call_soon_threadsafe(poked, loop)",
            "def post_worker_init(worker):",
            f"    signal.signal({int(POKE)}, on_signal)",
        ]
    return "\n".join(lines) + "\n"
