"""A forked worker, as Gunicorn has them: it does its work, and ends when it is told."""

import os
from collections.abc import Callable

from deploy.processes import die_with


def begin(work: Callable[[], object]) -> tuple[int, int]:
    """A process that has done the work; its pid, and the pipe in which a byte tells it to end.

    It ends with this one too: its siblings hold copies of the pipe, which it would never see closed.

    Args:
        work: returns what lives as long as the process, such as the place that it claimed.
    """
    ready_here, ready_there = os.pipe()
    end_there, end_here = os.pipe()
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
        die_with(parent)
        _kept = work()
        os.write(ready_there, b".")
        os.read(end_there, 1)
        os._exit(0)
    os.close(ready_there)
    os.close(end_there)
    os.read(ready_here, 1)
    os.close(ready_here)
    return pid, end_here
