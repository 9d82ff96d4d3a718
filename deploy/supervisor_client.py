"""Asks supervisor how its programs are, over its Unix socket."""

import http.client
import socket
import xmlrpc.client
from pathlib import Path
from typing import Any, NamedTuple

CALL_SECONDS_MAX = 5.0


class Program(NamedTuple):
    """`state` as supervisor names it: STARTING, RUNNING, BACKOFF, FATAL …"""

    name: str
    state: str
    pid: int


class _UnixTransport(xmlrpc.client.Transport):
    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path

    def make_connection(self, host: Any) -> http.client.HTTPConnection:  # noqa: ARG002 - the base class's signature
        connection = http.client.HTTPConnection("localhost")
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.settimeout(CALL_SECONDS_MAX)
        connection.sock.connect(str(self._path))
        return connection


class Supervisor:
    """A call also wakes supervisor, whose loop otherwise looks at its programs once a second."""

    def __init__(self, path: Path) -> None:
        self._proxy = xmlrpc.client.ServerProxy("http://localhost/RPC2", transport=_UnixTransport(path))

    def programs(self) -> list[Program]:
        """All programs; none while supervisor does not answer, which it does not before and after its work."""
        try:
            answer: Any = self._proxy.supervisor.getAllProcessInfo()
        except (OSError, http.client.HTTPException, xmlrpc.client.Error):
            return []
        return [Program(entry["name"], entry["statename"], entry["pid"]) for entry in answer]
