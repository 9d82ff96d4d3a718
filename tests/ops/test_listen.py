"""The socket that NGINX is started on."""

import os

import psutil

from deploy.listen import listening_socket
from tests.support.chain import Chain


def test_no_nginx_process_can_hang_in_accept() -> None:
    """Two processes woke for one connection, and the one that did not get it stood still with all its streams."""
    with listening_socket("127.0.0.1:0", 1.0) as listener:
        assert not os.get_blocking(listener.fileno())
    with Chain(workers=1) as chain:
        processes = psutil.Process(chain.nginx_pid()).children()
        assert processes
        for process in processes:
            assert flags_of_listener(process, chain.port) & os.O_NONBLOCK


def flags_of_listener(process: psutil.Process, port: int) -> int:
    """As the kernel has them for this process."""
    listener = next(
        c for c in process.net_connections("tcp") if c.status == psutil.CONN_LISTEN and c.laddr.port == port
    )
    with open(f"/proc/{process.pid}/fdinfo/{listener.fd}") as info:
        return next(int(line.split()[1], 8) for line in info if line.startswith("flags:"))
