"""`make observe` beside a chain: a real Prometheus and Alertmanager, and what they answer."""

import json
import math
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from types import TracebackType
from typing import Any

import pytest

from deploy.processes import die_with_parent
from tests.support.chain import Chain, free_port
from tests.support.launched import HOME

READY_SECONDS_MAX = 60.0
STOP_SECONDS_MAX = 30.0
CALL_SECONDS_MAX = 20.0
POLL_SECONDS = 0.2

Series = list[dict[str, Any]]


class Observer:
    """Use as a context manager. The programs' own words go to pytest's captured output."""

    def __init__(self, chain: Chain, scrape_seconds: int = 1) -> None:
        for program in ("prometheus", "prometheus-alertmanager"):
            if shutil.which(program) is None:
                pytest.skip(f"{program} is missing")
        self.prometheus, self.alertmanager = (f"http://127.0.0.1:{free_port()}" for _ in range(2))
        self._env = chain.env
        self._arguments = [
            *("--prometheus", self.prometheus.removeprefix("http://")),
            *("--alertmanager", self.alertmanager.removeprefix("http://")),
            *("--scrape-seconds", str(scrape_seconds)),
        ]

    def __enter__(self) -> "Observer":
        self.process = subprocess.Popen(
            [sys.executable, "-m", "deploy.observe", *self._arguments],
            cwd=HOME,
            env=self._env,
            preexec_fn=die_with_parent(),  # noqa: PLW1509 - two system calls, no lock
        )
        try:
            self.until(lambda: self.value('up{job="sluice"}') == 1, READY_SECONDS_MAX, "the chain is scraped")
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> int:
        """As Ctrl-C does; returns the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        return self.process.wait(STOP_SECONDS_MAX)

    def get(self, url: str, **parameters: str | float) -> Any:
        """A JSON answer.

        Raises:
            AssertionError: it is an error, with what was said.
        """
        query = urllib.parse.urlencode(parameters)
        try:
            with urllib.request.urlopen(f"{url}?{query}", timeout=CALL_SECONDS_MAX) as answer:
                return json.loads(answer.read())
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{url} {parameters}: {error.read().decode()}") from None

    def now(self, expression: str, at: float | None = None) -> Series:
        """The series of an expression at a moment."""
        parameters: dict[str, str | float] = {"query": expression} | ({} if at is None else {"time": at})
        found: Series = self.get(f"{self.prometheus}/api/v1/query", **parameters)["data"]["result"]
        return found

    def value(self, expression: str) -> float | None:
        """The one value of an expression, or None."""
        try:
            found = self.now(expression)
        except (OSError, AssertionError):
            return None
        return float(found[0]["value"][1]) if found else None

    def over(self, expression: str, start: float, end: float, step_seconds: float = 2) -> Series:
        """As a graph asks for it."""
        answer = self.get(
            f"{self.prometheus}/api/v1/query_range", query=expression, start=start, end=end, step=step_seconds
        )
        found: Series = answer["data"]["result"]
        return found

    def has_data(self, expression: str, start: float, end: float) -> bool:
        """Whether there is a finite value anywhere in that time."""
        return any(
            math.isfinite(float(value)) for series in self.over(expression, start, end) for _, value in series["values"]
        )

    def rules(self) -> list[dict[str, Any]]:
        groups = self.get(f"{self.prometheus}/api/v1/rules")["data"]["groups"]
        return [rule for group in groups for rule in group["rules"]]

    def until(self, condition: Callable[[], object], seconds: float, what: str) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert self.process.poll() is None, f"make observe ended with {self.process.returncode}"
            assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
            time.sleep(POLL_SECONDS)
