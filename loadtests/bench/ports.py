"""Free ports, and waiting until something answers on one."""

import http.client
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from loadtests.bench.errors import BenchError
from loadtests.bench.processes import last_lines

START_SECONDS_MAX = 60
POLL_SECONDS = 0.1


def free_ports(count: int) -> list[int]:
    """Ports on 127.0.0.1 that nobody listens on."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [taken.getsockname()[1] for taken in sockets]
    for taken in sockets:
        taken.close()
    return ports


def wait_until_answers(port: int, path: str, status: int, process: subprocess.Popen[bytes], log: Path) -> None:
    """Until GET `path` has `status`.

    Raises:
        BenchError: the process ended, or the time is up; with the end of its log.
    """
    _wait(lambda: _status(port, path) == status, process, log)


def wait_until_listens(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    """Until something accepts connections on `port`.

    Raises:
        BenchError: as above.
    """
    _wait(lambda: _listens(port), process, log)


def _wait(ready: Callable[[], bool], process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS_MAX
    while not ready():
        if process.poll() is not None:
            raise BenchError(f"{log.stem} ended with {process.returncode} while starting:\n{last_lines(log)}")
        if time.monotonic() > deadline:
            raise BenchError(f"{log.stem} is not ready after {START_SECONDS_MAX} s:\n{last_lines(log)}")
        time.sleep(POLL_SECONDS)


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def _status(port: int, path: str) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=1)
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    except (OSError, http.client.HTTPException):
        return 0
    finally:
        connection.close()
