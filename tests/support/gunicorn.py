"""Gunicorn alone, with the product's configuration and what a test adds to it: its workers' life, without NGINX."""

import contextlib
import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence

import psutil

from tests.support.call import ask
from tests.support.chain import free_port
from tests.support.launched import HOME, POLL_SECONDS, Launched

START_SECONDS_MAX = 60.0
# What a test wants to happen inside a worker, in the turn of the loop that gets the signal.
POKE = signal.SIGUSR2


class Gunicorn(Launched):
    """Listens on a port of its own.

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
        super().__init__(stdout=stdout)
        written = self.folder / "gunicorn.conf.py"
        written.write_text(_derived(conf, poke))
        self._command = [part.format(conf=written) for part in command]
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        self.env |= {"WORKERS": "1", "SLUICE_BIND": f"127.0.0.1:{port}", **(env or {})}

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

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + START_SECONDS_MAX
        while True:
            assert self.process.poll() is None, f"ended with {self.process.returncode}:\n{self.log}"
            assert time.monotonic() < deadline, f"not ready within {START_SECONDS_MAX} s:\n{self.log}"
            with contextlib.suppress(OSError, AssertionError):
                if ask(self.url, "/readyz").status == 200:
                    return
            time.sleep(POLL_SECONDS)


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
