"""A program of the product that a test started: its environment, its folder, its log and its end."""

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

from deploy.processes import die_with_parent

HOME = Path(__file__).resolve().parents[2]
POLL_SECONDS = 0.05
STOP_SECONDS_MAX = 30.0
# What the caller's shell says of these must not reach what a test starts.
OURS = ("PORT", "WORKERS")


class Launched(ABC):
    """Use as a context manager; leaving it stops it, kills what is left of it, and removes its folder.

    `env` and `process` may be looked at; `env` may be changed until it starts.
    """

    STOP_SIGNAL = signal.SIGTERM

    def __init__(self, command: Sequence[str] = (), stdout: int | None = None) -> None:
        # Directly below /tmp: a Unix socket's path is short, and pytest's folders are not.
        self.folder = Path(tempfile.mkdtemp(prefix="sluice-", dir="/tmp"))
        self._log = self.folder / "log"
        self._command, self._stdout = list(command), stdout
        self.env = {
            name: value for name, value in os.environ.items() if not name.startswith("SLUICE_") and name not in OURS
        } | {
            "SLUICE_STATE_DIR": str(self.folder / "state"),
            "SLUICE_DRAIN_SECONDS": "5",
            "SLUICE_DRAIN_SPREAD_SECONDS": "0.5",
        }

    @abstractmethod
    def _wait_until_ready(self) -> None:
        """Return once it serves; raise an AssertionError that shows its log where it does not."""

    def __enter__(self) -> Self:
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                self._command,
                cwd=HOME,
                env=self.env,
                stdin=subprocess.DEVNULL,
                stdout=log if self._stdout is None else self._stdout,
                stderr=log if self._stdout is None else self._stdout,
                # A pytest that is killed takes it along.
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
            self.kill_all()
            shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def log(self) -> str:
        """Everything that it wrote to the terminal so far."""
        return self._log.read_text(errors="replace")

    def wait_for(self, text: str, seconds: float = 10.0) -> None:
        """Until the log holds `text`."""
        deadline = time.monotonic() + seconds
        while text not in self.log:
            assert self.process.poll() is None, f"ended with {self.process.returncode} before {text!r}:\n{self.log}"
            assert time.monotonic() < deadline, f"no {text!r} within {seconds} s:\n{self.log}"
            time.sleep(POLL_SECONDS)

    def processes(self) -> list[psutil.Process]:
        """Everything below and including what was started, alive or zombie."""
        try:
            top = psutil.Process(self.process.pid)
            return [top, *top.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def stop(self, number: signal.Signals | None = None, seconds: float = STOP_SECONDS_MAX) -> int:
        """Signal what was started, by default as its user would; returns its exit code."""
        self.process.send_signal(number or self.STOP_SIGNAL)
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
