"""Programs that a measurement starts."""

import os
import signal
import subprocess
import sys
import time

import psutil

PROGRAM = """
import subprocess, time
from loadtests.bench.processes import choose_cores, spawn
print(spawn(["sleep", "60"], choose_cores().gateway, subprocess.DEVNULL).pid, flush=True)
time.sleep(60)
"""


def test_a_measurement_that_is_killed_leaves_nothing_that_runs() -> None:
    with subprocess.Popen([sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE, text=True) as measuring:
        assert measuring.stdout is not None
        started = int(measuring.stdout.readline())
        assert psutil.Process(started).status() != psutil.STATUS_ZOMBIE
        os.kill(measuring.pid, signal.SIGKILL)
    deadline = time.monotonic() + 10
    while psutil.pid_exists(started) and psutil.Process(started).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline, "it still runs"
        time.sleep(0.05)
