"""What happens to Sluice in the middle of a test: a deployment, the death of a worker, or any command.

The two that have names act on a `make run` on this machine; in a cluster, give the command.
"""

import os
import shlex
import signal
import subprocess
from pathlib import Path

COMMAND_SECONDS_MAX = 120
SUPERVISORCTL = ".venv/bin/supervisorctl"


class NotDisturbed(RuntimeError):
    """It did not happen; the message says why. The test then shows nothing."""


def disturb(what: str, state_dir: Path) -> str:
    """Do it; what was done.

    Raises:
        NotDisturbed: it could not be done.
    """
    try:
        return _disturb(what, state_dir)
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        # No such program, quotes that do not close, a command that does not end, a process that is not ours.
        raise NotDisturbed(f"{what!r}: {error}") from error


def _disturb(what: str, state_dir: Path) -> str:
    if what == "deploy":
        master = gunicorn_pid(state_dir)
        _send(master, signal.SIGHUP)
        return f"HUP to Gunicorn {master}: every worker is replaced"
    if what == "kill":
        worker = workers(gunicorn_pid(state_dir))[0]
        _send(worker, signal.SIGKILL)
        return f"KILL to worker {worker}"
    done = subprocess.run(shlex.split(what), capture_output=True, text=True, timeout=COMMAND_SECONDS_MAX, check=False)
    if done.returncode:
        raise NotDisturbed(f"{what!r} ended with {done.returncode}: {done.stderr.strip()}")
    return f"{what!r}: {done.stdout.strip()}"


def gunicorn_pid(state_dir: Path) -> int:
    """The master of the `make run` on that state folder."""
    socket = state_dir.resolve() / "run" / "supervisor.sock"
    command = [SUPERVISORCTL, "-s", f"unix://{socket}", "pid", "gunicorn"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=COMMAND_SECONDS_MAX, check=False)
    if not done.stdout.strip().isdigit():
        raise NotDisturbed(f"no Gunicorn runs on {state_dir}: {(done.stdout + done.stderr).strip()}")
    return int(done.stdout)


def workers(master: int) -> list[int]:
    """Its children, oldest first."""
    children = Path(f"/proc/{master}/task/{master}/children")
    found = [int(pid) for pid in children.read_text().split()] if children.exists() else []
    if not found:
        raise NotDisturbed(f"Gunicorn {master} has no workers")
    return found


def _send(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        raise NotDisturbed(f"process {pid} is gone") from None
