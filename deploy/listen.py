"""Starts NGINX on a socket that finds out about vanished clients: `python -m deploy.listen HOST PORT NGINX ARG…`.

A client that disappears without a FIN acknowledges nothing more, and heartbeats to it only pile up in the kernel for
the quarter of an hour that TCP tries. TCP_USER_TIMEOUT bounds that, and accepted sockets inherit it. NGINX has no
directive for it, but takes over listening sockets whose descriptors its variable NGINX names, as in a binary upgrade.
Source: https://nginx.org/en/docs/control.html#upgrade and tcp(7).
"""

import os
import socket
import sys

from app.timeouts import ledger

BACKLOG = 4096


def listening_socket(host: str, port: int, user_timeout_seconds: float) -> socket.socket:
    """A bound socket whose connections fail once sent data was not acknowledged for `user_timeout_seconds`."""
    found = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    found.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(user_timeout_seconds * 1000))
    found.bind((host, port))
    found.listen(BACKLOG)
    # NGINX takes over a socket as it is. All its processes wake for a connection, and one gets it: on a blocking socket
    # the others would hang in accept, with all their streams, until the next one comes.
    found.setblocking(False)
    return found


def main(host: str, port: str, program: str, *arguments: str) -> None:
    """Become NGINX."""
    inherited = listening_socket(host, int(port), ledger()["vanished_seconds"])
    inherited.set_inheritable(True)
    os.environ["NGINX"] = f"{inherited.fileno()};"
    os.execv(program, [program, *arguments])


if __name__ == "__main__":
    main(*sys.argv[1:])
