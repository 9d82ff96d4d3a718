"""NGINX alone, with the product's configuration, before workers that do what a test tells them."""

import json
import os
import pwd
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import psutil

from app.timeouts import ledger
from deploy import nginx_config
from deploy.nginx_build import look_at
from deploy.processes import die_with_parent
from tests.support.certificate import Certificate
from tests.support.chain import free_port
from tests.support.nginx_builds import installed

START_SECONDS_MAX = 10.0
WAIT_SECONDS_MAX = 10.0


@dataclass
class Exchange:
    """One request, as it came to a worker, and the connection to answer on."""

    method: str
    path: str
    headers: list[tuple[str, str]]
    body: bytes
    connection: socket.socket

    def header(self, name: str) -> list[str]:
        """The values of every header of that name."""
        return [value for key, value in self.headers if key.lower() == name.lower()]

    def answer(self, body: bytes, *, status: str = "200 OK", content_type: str = "application/json") -> None:
        head = f"HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {len(body)}\r\n\r\n"
        self.connection.sendall(head.encode() + body)

    def begin_stream(self) -> None:
        head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
        self.connection.sendall(head.encode())

    def chunk(self, data: bytes) -> None:
        """An empty one ends the stream."""
        self.connection.sendall(b"%x\r\n%b\r\n" % (len(data), data))

    def closed_by_peer(self, seconds: float) -> bool:
        """Whether NGINX hangs up within that time."""
        self.connection.settimeout(seconds)
        try:
            return self.connection.recv(1) == b""
        except ConnectionError:
            return True
        except TimeoutError:
            return False


# Answers one request; returns whether the connection stays open.
Script = Callable[[Exchange], bool]


class Worker:
    """Listens on a Unix socket and hands each request to `script`; without one, nobody listens on it."""

    def __init__(self, path: Path, script: Script | None) -> None:
        self.requests: list[Exchange] = []
        self.connections = 0
        self.connections_closed = 0
        self._script = script
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._threads: list[threading.Thread] = []
        if script is None:
            self._listener.close()
        else:
            self._listener.listen(512)
            self._start(self._accept)

    def close(self) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes accept
        self._listener.close()
        for thread in self._threads:
            thread.join(WAIT_SECONDS_MAX)

    def _start(self, job: Callable[..., None], *args: object) -> None:
        thread = threading.Thread(target=job, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            self._start(self._serve, connection)

    def _serve(self, connection: socket.socket) -> None:
        assert self._script is not None
        with connection, connection.makefile("rb") as stream, suppress(OSError):
            while request := _read_request(stream.readline, stream.read, connection):
                self.requests.append(request)
                if not self._script(request):
                    break
        self.connections_closed += 1


def _read_request(
    readline: Callable[[], bytes], read: Callable[[int], bytes], connection: socket.socket
) -> Exchange | None:
    line = readline().decode()
    if not line:
        return None
    method, path, _ = line.split(" ")
    headers = []
    while header := readline().decode().rstrip("\r\n"):
        name, _, value = header.partition(": ")
        headers.append((name, value))
    length = next((int(value) for name, value in headers if name.lower() == "content-length"), 0)
    return Exchange(method, path, headers, read(length), connection)


class Edge:
    """NGINX before one worker for each of `scripts`; None is a worker that died.

    Args:
        nginx: which; by default this machine's.
        options: folders of nginx/options. With `tls`, certificate and key are those of `Certificate`.
        config: in the place of what `nginx_config.values` is given otherwise.
    """

    def __init__(
        self, *scripts: Script | None, nginx: str | None = None, options: Sequence[str] = (), **config: Any
    ) -> None:
        self._scripts, self._options, self._config = scripts, options, config
        self._nginx = nginx or installed()
        self._stack = ExitStack()
        self.port, self.tls_port = free_port(), free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.tls_url = f"https://localhost:{self.tls_port}"

    def __enter__(self) -> "Edge":
        with ExitStack() as stack:
            self.prefix = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="sluice-edge-", dir="/tmp")))
            sockets = [self.prefix / f"worker-{slot}.sock" for slot, _ in enumerate(self._scripts, 1)]
            self.workers = [Worker(path, script) for path, script in zip(sockets, self._scripts, strict=True)]
            for worker in self.workers:
                stack.callback(worker.close)
            self._start_nginx(stack)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def log(self, lines: int = 1) -> list[dict[str, str]]:
        """The first lines of the access log. One is written a moment after its answer, so this waits for them."""
        deadline = time.monotonic() + WAIT_SECONDS_MAX
        while len(found := (self.prefix / "access.log").read_text().splitlines()) < lines:
            assert time.monotonic() < deadline, f"{len(found)} of {lines} lines"
            time.sleep(0.02)
        return [json.loads(line) for line in found]

    @property
    def requests(self) -> list[Exchange]:
        """What all workers got."""
        return [request for worker in self.workers for request in worker.requests]

    def connect(self, *, receive_bytes: int | None = None) -> socket.socket:
        """A client's connection, if need be one whose kernel takes little before it reads."""
        client = socket.socket()
        try:
            if receive_bytes is not None:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
            client.settimeout(WAIT_SECONDS_MAX)
            client.connect(("127.0.0.1", self.port))
        except OSError:
            client.close()
            raise
        return client

    def configure(self, **config: Any) -> None:
        """Writes the configuration anew, with these values besides those that it had."""
        self._config |= config
        build = look_at(self._nginx)
        sockets = [self.prefix / f"worker-{slot}.sock" for slot, _ in enumerate(self._scripts, 1)]
        given: dict[str, Any] = {
            "listen": f"127.0.0.1:{self.port}",
            "sockets": sockets,
            "waits": ledger(),
            "ops_listen": [f"unix:{self.prefix}/ops.sock"],
            "streams_max": 10_000,
            "client_requests_per_second": 10_000,
        }
        values = nginx_config.values(**given | self._config)
        if "tls" in self._options:
            certificate = Certificate.of(self.prefix)
            values |= nginx_config.tls_values(
                build,
                listen=f"127.0.0.1:{self.tls_port}",
                port=self.tls_port,
                certificate=certificate.chain,
                key=certificate.key,
                chosen=self._options,
            )
        nginx_config.render(self.prefix, values, build, self._options)

    def signal(self, name: str) -> None:
        """`reload`, `quit`, …: as an operator does it."""
        subprocess.run([*self._command, "-s", name], check=True, capture_output=True, timeout=WAIT_SECONDS_MAX)

    def reload(self) -> None:
        """Have it read its files again, and wait until those who take connections have."""
        before = self.processes()
        self.signal("reload")
        deadline = time.monotonic() + WAIT_SECONDS_MAX
        while before & self.processes() or not self.processes():
            assert time.monotonic() < deadline, (self.prefix / "stderr").read_text()
            time.sleep(0.02)

    def processes(self, *, leaving: bool = False) -> set[int]:
        """Those that take connections; or those that only go on with what they have."""
        found = set()
        for child in psutil.Process(self.process.pid).children():
            with suppress(psutil.NoSuchProcess):  # it may end while we look
                if child.status() != psutil.STATUS_ZOMBIE and ("shutting down" in " ".join(child.cmdline())) == leaving:
                    found.add(int(child.pid))
        return found

    def _start_nginx(self, stack: ExitStack) -> None:
        self.configure()
        user = f" user {pwd.getpwuid(0).pw_name};" if os.geteuid() == 0 else ""
        folder = str(self.prefix)
        self._command = [self._nginx, "-p", folder, "-c", f"{folder}/nginx.conf", "-e", "stderr"]
        self._command += ["-g", f"daemon off;{user}"]
        with (self.prefix / "stderr").open("wb") as output:
            self.process = subprocess.Popen(
                self._command,
                stderr=output,
                preexec_fn=die_with_parent(),  # noqa: PLW1509 - two system calls, no lock
            )
        stack.callback(self.process.wait, WAIT_SECONDS_MAX)
        stack.callback(self.process.terminate)
        self._wait_until_listening()

    def _wait_until_listening(self) -> None:
        deadline = time.monotonic() + START_SECONDS_MAX
        while True:
            try:
                self.connect().close()
                return
            except ConnectionRefusedError:
                assert time.monotonic() < deadline, (self.prefix / "stderr").read_text()
                assert self.process.poll() is None, (self.prefix / "stderr").read_text()
                time.sleep(0.02)
