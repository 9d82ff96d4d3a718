"""Starts NGINX on sockets that find out about vanished clients: `python -m deploy.listen ADDRESS… -- NGINX ARG…`.

A client that disappears without a FIN acknowledges nothing more, and heartbeats to it only pile up in the kernel for
the quarter of an hour that TCP tries. TCP_USER_TIMEOUT bounds that, and accepted sockets inherit it. NGINX has no
directive for it, but takes over listening sockets whose descriptors its variable NGINX names, as in a binary upgrade.
Source: https://nginx.org/en/docs/control.html#upgrade and tcp(7).

An address is host:port, [v6]:port, or the path of a Unix socket. What is left of one, by an NGINX that was killed, is
removed: NGINX itself would not start there.
"""

import os
import socket
import sys
from pathlib import Path

from app.timeouts import ledger

BACKLOG = 4096


def listening_socket(address: str, user_timeout_seconds: float) -> socket.socket:
    """A bound socket whose connections fail once sent data was not acknowledged for `user_timeout_seconds`."""
    found = unix_socket(Path(address)) if "/" in address else tcp_socket(address, user_timeout_seconds)
    found.listen(BACKLOG)
    # NGINX takes over a socket as it is. All its processes wake for a connection, and one gets it: on a blocking socket
    # the others would hang in accept, with all their streams, until the next one comes.
    found.setblocking(False)
    return found


def tcp_socket(address: str, user_timeout_seconds: float) -> socket.socket:
    host, _, port = address.rpartition(":")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    found = socket.socket(family, socket.SOCK_STREAM)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    found.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(user_timeout_seconds * 1000))
    if family == socket.AF_INET6:
        # As NGINX has it: IPv6 alone, so that IPv4 may have the same port.
        found.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    found.bind((host.strip("[]"), int(port)))
    return found


def unix_socket(path: Path) -> socket.socket:
    path.unlink(missing_ok=True)
    found = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    found.bind(str(path))
    return found


def main(*arguments: str) -> None:
    """Become NGINX."""
    split = arguments.index("--")
    timeout_seconds = ledger()["vanished_seconds"]
    inherited = [listening_socket(address, timeout_seconds) for address in arguments[:split]]
    for each in inherited:
        each.set_inheritable(True)
    os.environ["NGINX"] = "".join(f"{each.fileno()};" for each in inherited)
    program, *rest = arguments[split + 1 :]
    os.execv(program, [program, *rest])


if __name__ == "__main__":
    main(*sys.argv[1:])
