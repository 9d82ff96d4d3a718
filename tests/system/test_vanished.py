"""A client that vanishes without a FIN, as a phone in a tunnel does: nothing tells the server but the silence."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time

import pytest

from tests.support.chain import Chain
from tests.support.launched import HOME
from tests.support.workers import active_streams, sockets, until

FOUND_SECONDS_MAX = 45.0
STREAM = {
    "prompt": "x",
    "stream": True,
    "on_disconnect": "cancel",
    # The worst case, a stream that is silent: only a heartbeat, every 15 s, is there not to be acknowledged.
    "simulator": {"tokens": 5, "tokens_per_second": 0.01, "first_token_ms": 0},
}

needs_namespaces = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("unshare") is None, reason="a network namespace takes root and unshare"
)


@needs_namespaces
@pytest.mark.slow
def test_a_client_that_vanishes_is_found_within_45_seconds() -> None:
    command = ["unshare", "-n", sys.executable, "-m", "tests.system.test_vanished"]
    done = subprocess.run(command, cwd=HOME, capture_output=True, text=True, timeout=110)
    assert done.returncode == 0, done.stdout + done.stderr
    seconds = float(done.stdout.split()[-1])
    assert seconds < FOUND_SECONDS_MAX


def seconds_until_found() -> float:
    """In a network namespace of its own: begin a stream, take the network away, and wait for the end of the stream."""
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    with Chain(workers=1) as chain:
        client = socket.create_connection(("127.0.0.1", chain.port))
        body = json.dumps(STREAM)
        head = f"POST /api/v1/generate HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}"
        client.sendall(f"{head}\r\nContent-Type: application/json\r\n\r\n{body}".encode())
        (worker,) = sockets(chain)
        until(lambda: active_streams(worker) == 1, 10, "the stream has begun")
        # Every packet is lost from here on, in both directions; Unix sockets are not concerned.
        subprocess.run(["ip", "link", "set", "lo", "down"], check=True)
        lost = time.monotonic()
        until(lambda: active_streams(worker) == 0, 70, "the stream has ended")
        found = time.monotonic() - lost
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
        return found


if __name__ == "__main__":
    print(seconds_until_found())
