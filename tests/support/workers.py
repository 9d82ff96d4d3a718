"""A chain's workers, asked one by one past NGINX."""

import socket
import struct
import time
from collections.abc import Callable
from pathlib import Path

from tests.support.call import ask
from tests.support.chain import Chain
from tests.support.surfaces import NATIVE

POLL_SECONDS = 0.02


def sockets(chain: Chain) -> list[Path]:
    """Where the workers listen, in the order of their slots."""
    return sorted((chain.state_dir / "run").glob("worker-*.sock"))


def pid_behind(path: Path) -> int:
    """The worker that listens there."""
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
        pid, _, _ = struct.unpack("3i", client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        return int(pid)


def is_gone(pid: int) -> bool:
    """Whether the process has ended, and its parent knows."""
    return not Path(f"/proc/{pid}").exists()


def active_streams(target: str | Path) -> int:
    """How many streams a worker produces, by its own account."""
    return int(ask(target, "/health").json["checks"]["active_streams"])


def all_active_streams(chain: Chain) -> list[int]:
    """The same of each worker."""
    return [active_streams(path) for path in sockets(chain)]


def producing_worker(chain: Chain) -> int:
    """The process of the one worker that has a stream."""
    return next(pid_behind(path) for path in sockets(chain) if active_streams(path) == 1)


def log_works(chain: Chain) -> bool:
    """Whether a new stream is in the log: its events have ids."""
    simulator = {"tokens": 5, "tokens_per_second": 50}
    answer = ask(chain.url, NATIVE.path, NATIVE.body("simulator", simulator=simulator))
    return answer.status == 200 and all(frame.id for frame in answer.frames)


def until(condition: Callable[[], object], seconds: float, what: str) -> None:
    """Wait for something that comes about by itself."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(POLL_SECONDS)


def until_replaced(chain: Chain, dead: set[int], seconds: float = 20.0) -> None:
    """Wait until other processes are in the place of the `dead` workers and answer."""

    def replaced() -> bool:
        pids = chain.worker_pids()
        return len(pids) == int(chain.env["WORKERS"]) and not dead & set(pids) and _all_answer(chain)

    until(replaced, seconds, f"workers {dead} are replaced")


def _all_answer(chain: Chain) -> bool:
    try:
        return len(all_active_streams(chain)) == int(chain.env["WORKERS"])
    except OSError:
        return False
