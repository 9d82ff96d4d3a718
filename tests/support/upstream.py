"""Starts the scripted upstream and speaks with it: a server of OpenAI's API and Anthropic's whose answers tests decide.

with ScriptedUpstream() as upstream:
    upstream.script("stalls", stall_after=3)        # requests for the model `stalls` get this
    ... call upstream.base_url with that model ...
    assert upstream.wait_closed("stalls").tokens == 3
"""

import http.client
import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec

from tests.support.upstream_log import Entry, Log
from tests.support.upstream_script import Script

ROOT = Path(__file__).parents[2]
START_SECONDS = 20.0


class ScriptedUpstream:
    """The process, as a context manager. One serves any number of tests: each uses model names of its own."""

    def __enter__(self) -> Self:
        command = [sys.executable, "-m", "tests.support.upstream_server"]
        self.process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self.process.stdout is not None
        ready, _, _ = select.select([self.process.stdout], [], [], START_SECONDS)
        line = self.process.stdout.readline() if ready else b""
        if not line:
            self.process.kill()
            self.process.wait()
            raise RuntimeError("the scripted upstream did not start")
        self.port = int(line)
        self.base_url = f"http://127.0.0.1:{self.port}/v1"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.process.kill()
        self.process.communicate()

    def script(self, model: str, *scripts: Script, **fields: Any) -> Script:
        """Requests for `model` get these scripts in turn (the last one stays), or the one of these fields."""
        given = list(scripts) or [Script(**fields)]
        self._control("POST", "/__script__", {"model": model, "scripts": msgspec.to_builtins(given)})
        return given[0]

    def log(self) -> Log:
        """Everything so far."""
        return msgspec.convert(self._control("GET", "/__log__"), Log)

    def requests(self, model: str) -> list[Entry]:
        """The generations that were started for `model`."""
        return [entry for entry in self.log().requests if entry.model == model]

    def wait_closed(self, model: str, seconds: float = 10) -> Entry:
        """The model's last generation, once its peer has closed; `closed_at` tells when that was."""
        return self._wait(lambda entry: entry.closed is not None, model, seconds, "closed by its peer")

    def wait_finished(self, model: str, seconds: float = 10) -> Entry:
        """The model's last generation, once it has ended in any way."""
        return self._wait(lambda entry: entry.finished is not None, model, seconds, "finished")

    def wait_tokens(self, model: str, tokens: int, generations: int = 1, seconds: float = 10) -> Entry:
        """The model's last generation, once there are so many and the last has sent so many tokens."""
        return self._wait(lambda entry: entry.tokens >= tokens, model, seconds, f"sent {tokens} tokens", generations)

    def wait_started(self, model: str, seconds: float = 10) -> Entry:
        """The model's last generation, once there is one."""
        return self._wait(lambda _: True, model, seconds, "started")

    def _wait(self, holds: Callable[[Entry], bool], model: str, seconds: float, what: str, count: int = 1) -> Entry:
        deadline = time.monotonic() + seconds
        while True:
            entries = self.requests(model)
            if len(entries) >= count and holds(entries[-1]):
                return entries[-1]
            if time.monotonic() > deadline:
                raise AssertionError(f"{model}: no generation {what} within {seconds} s; the log has {entries}")
            time.sleep(0.02)

    def _control(self, method: str, path: str, order: Any = None) -> Any:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request(method, path, json.dumps(order) if order is not None else None)
            return json.loads(connection.getresponse().read())
        finally:
            connection.close()


if __name__ == "__main__":  # by hand: a scripted upstream in the foreground, until its standard input ends
    os.execv(sys.executable, [sys.executable, "-m", "tests.support.upstream_server"])
