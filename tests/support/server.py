"""The app under Uvicorn in a process of its own, for tests that need HTTP and neither Gunicorn nor NGINX.

with AppServer(SLUICE_HEARTBEAT_SECONDS="1") as server:
    answer = server.post("/api/v1/generate", {"prompt": "Say it."})
    line = server.wait_line(request_id=answer.headers["x-request-id"])
"""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

ROOT = Path(__file__).parents[2]
START_SECONDS = 20.0
STOP_SECONDS = 20.0
ANSWER_SECONDS_MAX = 20.0


@dataclass(frozen=True)
class HTTPAnswer:
    """A whole answer; the names of its headers are in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class AppServer:
    """The process, as a context manager. `environment` is all that it has of SLUICE_ variables."""

    def __init__(self, **environment: str) -> None:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("SLUICE_")}
        self._environment = inherited | {"SLUICE_STREAM_LOG": "memory://"} | environment

    def __enter__(self) -> Self:
        self._output = tempfile.TemporaryFile()
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            self.port = int(listener.getsockname()[1])
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.support.server", str(listener.fileno())],
                cwd=ROOT,
                env=self._environment,
                pass_fds=[listener.fileno()],
                stdout=self._output,
                stderr=subprocess.STDOUT,
            )
        try:
            self._wait_until_it_answers()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._output.close()

    def _wait_until_it_answers(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                if self.get("/livez").status == 200:
                    return
            except OSError:
                pass
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the app did not start: {self.output()}")
            time.sleep(0.02)

    def connect(self, timeout_seconds: float = ANSWER_SECONDS_MAX) -> http.client.HTTPConnection:
        """A connection of the caller's own, which stays open from one request to the next."""
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout_seconds)

    def raw(self, request: bytes, timeout_seconds: float = 20) -> bytes:
        """Send these bytes, which should ask for `Connection: close`, and read to the end."""
        with socket.create_connection(("127.0.0.1", self.port), timeout_seconds) as connection:
            connection.sendall(request)
            answer = b""
            while piece := connection.recv(65_536):
                answer += piece
            return answer

    def get(self, path: str, headers: Mapping[str, str] | None = None) -> HTTPAnswer:
        return self.request("GET", path, None, headers)

    def post(self, path: str, body: Any, headers: Mapping[str, str] | None = None) -> HTTPAnswer:
        """POST `body` as JSON; bytes are sent as they are."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self.request("POST", path, data, {"Content-Type": "application/json"} | dict(headers or {}))

    def request(
        self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> HTTPAnswer:
        return request(self.port, method, path, body, headers)

    def output(self) -> str:
        """All that the process wrote so far."""
        size = os.fstat(self._output.fileno()).st_size
        return os.pread(self._output.fileno(), size, 0).decode()

    def lines(self, **fields: Any) -> list[dict[str, Any]]:
        """The log lines so far that have all these fields."""
        whole = self.output().rpartition("\n")[0]
        found = [json.loads(line) for line in whole.split("\n") if line]
        return [line for line in found if fields.items() <= line.items()]

    def wait_line(self, within_seconds: float = 10, **fields: Any) -> dict[str, Any]:
        """The first log line that has all these fields, once it is there."""
        deadline = time.monotonic() + within_seconds
        while not (found := self.lines(**fields)):
            assert time.monotonic() < deadline, f"no line has {fields}:\n{self.output()[-2000:]}"
            time.sleep(0.01)
        return found[0]


def exchange(
    connection: http.client.HTTPConnection,
    method: str,
    path: str,
    body: bytes | None = None,
    headers: Mapping[str, str] | None = None,
) -> HTTPAnswer:
    """One request and its whole answer on an open connection."""
    connection.request(method, path, body, dict(headers or {}))
    answer = connection.getresponse()
    return HTTPAnswer(answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read())


def request(
    port: int,
    method: str,
    path: str,
    body: bytes | None = None,
    headers: Mapping[str, str] | None = None,
    *,
    address: str = "127.0.0.1",
) -> HTTPAnswer:
    """The same on a connection of its own, from an `address` of the loopback network."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=ANSWER_SECONDS_MAX, source_address=(address, 0))
    try:
        return exchange(connection, method, path, body, headers)
    finally:
        connection.close()


def main() -> None:
    """Serve on the socket whose number is the argument, as a worker does, until SIGTERM."""
    import uvicorn

    from app.main import create_app
    from app.protocol import SluiceProtocol
    from app.websocket import SluiceWebSocket

    config = uvicorn.Config(
        create_app(),
        http=SluiceProtocol,
        ws=SluiceWebSocket,
        ws_per_message_deflate=False,
        loop="uvloop",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=3,
    )
    uvicorn.Server(config).run(sockets=[socket.socket(fileno=int(sys.argv[1]))])


if __name__ == "__main__":
    main()
