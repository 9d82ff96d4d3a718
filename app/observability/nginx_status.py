"""What NGINX says of its connections: its stub_status, on a Unix socket that nobody else reaches.

https://nginx.org/en/docs/http/ngx_http_stub_status_module.html
"""

import re
import socket
from pathlib import Path
from typing import NamedTuple

ANSWER_SECONDS_MAX = 1.0
ANSWER_BYTES_MAX = 4096
_REQUEST = b"GET /stub_status HTTP/1.0\r\nHost: localhost\r\n\r\n"
_ANSWER = re.compile(
    rb"Active connections: \d+ \n"
    rb"server accepts handled requests\n"
    rb" (?P<accepted>\d+) (?P<handled>\d+) (?P<requests>\d+) \n"
    rb"Reading: (?P<reading>\d+) Writing: (?P<writing>\d+) Waiting: (?P<waiting>\d+)"
)


class Status(NamedTuple):
    """Since NGINX's start; the last three of this moment."""

    accepted: int
    handled: int
    requests: int
    reading: int
    writing: int
    waiting: int


def fetch(path: Path) -> Status | None:
    """What it says on this socket; None where it does not, or not in time."""
    answer = b""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(ANSWER_SECONDS_MAX)
            connection.connect(str(path))
            connection.sendall(_REQUEST)
            while len(answer) < ANSWER_BYTES_MAX and (data := connection.recv(ANSWER_BYTES_MAX)):
                answer += data
    except OSError:
        return None
    found = _ANSWER.search(answer)
    return Status(**{name: int(value) for name, value in found.groupdict().items()}) if found else None
