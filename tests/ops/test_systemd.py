"""The units for a machine without containers: systemd takes them, they confine what they run, their commands work."""

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.timeouts import ledger
from deploy.processes import die_with_parent
from tests.support.chain import free_port
from tests.support.workers import until

HOME = Path(__file__).resolve().parents[2]
FOLDER = HOME / "deploy" / "systemd"
UNITS = sorted(path.stem for path in FOLDER.glob("*.service"))
ANALYZE = shutil.which("systemd-analyze")
needs_systemd = pytest.mark.skipif(
    ANALYZE is None, reason="systemd-analyze is missing (Debian: apt-get install systemd)"
)
# 0 is confined as far as can be, 10 not at all; Debian's own nginx.service has 9.6.
EXPOSURE_MAX = 2.0
START_SECONDS_MAX = 60.0


def settings(unit: str, section: str = "Service") -> list[tuple[str, str]]:
    """Names and values in their order; one name may come several times."""
    text = (FOLDER / f"{unit}.service").read_text()
    found = re.search(rf"^\[{section}\]\n(.*?)(?=^\[|\Z)", text, re.MULTILINE | re.DOTALL)
    assert found
    return re.findall(r"^(\w+)=(.*)$", found[1], re.MULTILINE)


def value(unit: str, name: str, section: str = "Service") -> str:
    found = [text for key, text in settings(unit, section) if key == name]
    assert found, f"{unit}: {name}"
    return " ".join(found)


@needs_systemd
def test_systemd_finds_no_mistake_in_them(tmp_path: Path) -> None:
    """In a root where what they start is there."""
    for program in ("opt/sluice/.venv/bin/python", "bin/kill"):
        (tmp_path / program).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / program).write_text("#!/bin/sh\n")
        (tmp_path / program).chmod(0o755)
    target = tmp_path / "etc/systemd/system"
    target.mkdir(parents=True)
    for unit in UNITS:
        shutil.copy(FOLDER / f"{unit}.service", target)
    # What the system itself has.
    shutil.copytree("/lib/systemd/system", tmp_path / "lib/systemd/system", symlinks=True)
    command = [str(ANALYZE), "verify", f"--root={tmp_path}", "--man=no", *(f"{unit}.service" for unit in UNITS)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60)
    ours = [line for line in result.stderr.splitlines() if "sluice" in line]
    assert (result.returncode, ours) == (0, [])


@needs_systemd
@pytest.mark.parametrize("unit", UNITS)
def test_they_confine_what_they_run(unit: str) -> None:
    command = [str(ANALYZE), "security", "--offline=true", "--no-pager", str(FOLDER / f"{unit}.service")]
    said = subprocess.run(command, capture_output=True, text=True, timeout=60).stdout
    exposure = re.search(r"exposure level for \S+: ([\d.]+)", said)
    assert exposure, said
    assert float(exposure[1]) <= EXPOSURE_MAX


def test_each_is_stopped_only_after_its_time_of_the_ledger() -> None:
    waits = ledger()
    assert float(value("sluice", "TimeoutStopSec")) == waits["gunicorn_stop_seconds"] > waits["kill_seconds"]
    assert float(value("sluice-nginx", "TimeoutStopSec")) == waits["nginx_stop_seconds"]
    assert float(value("sluice-exporter", "TimeoutStopSec")) == waits["exporter_stop_seconds"]


def test_nginx_outlives_gunicorn_whose_streams_it_carries() -> None:
    """What starts after another stops before it."""
    assert "sluice-nginx.service" in value("sluice", "After", "Unit")
    assert "sluice-nginx.service" in value("sluice", "Wants", "Unit")
    for unit in ("sluice-nginx", "sluice-exporter"):
        assert value(unit, "PartOf", "Unit") == "sluice.service"
        assert value(unit, "Restart") == "always"
    assert value("sluice-nginx", "KillSignal") == "SIGQUIT"


def test_a_worker_that_the_kernel_kills_does_not_stop_the_others() -> None:
    assert value("sluice", "OOMPolicy") == "continue"


@needs_systemd
def test_systemd_understands_the_user_and_the_folders(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    for name in ("passwd", "group"):
        shutil.copy(f"/etc/{name}", tmp_path / "etc")
    for program, file in (("systemd-sysusers", "sluice.sysusers.conf"), ("systemd-tmpfiles", "sluice.tmpfiles.conf")):
        command = [program, f"--root={tmp_path}", *(["--create"] if "tmpfiles" in program else []), str(FOLDER / file)]
        result = subprocess.run(command, capture_output=True, text=True, timeout=30)
        assert (result.returncode, result.stderr if "tmpfiles" in program else "") == (0, "")
    assert "sluice" in (tmp_path / "etc/passwd").read_text()
    assert (tmp_path / "run/sluice/metrics").is_dir()


class Machine:
    """The units' commands, started and stopped as they say, with another folder in the place of /run and /var."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port, self.ops_port, self.metrics_port = free_port(), free_port(), free_port()
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        (folder / "run/metrics").mkdir(parents=True)

    def environment(self, unit: str) -> dict[str, str]:
        given = dict(pair.split("=", 1) for pair in value(unit, "Environment").split())
        placed = {name: text.replace("/run/sluice", str(self.folder / "run")) for name, text in given.items()}
        placed = {name: text.replace("/var/lib/sluice", str(self.folder / "state")) for name, text in placed.items()}
        if "SLUICE_OPS_BIND" in placed:
            placed["SLUICE_OPS_BIND"] = f"127.0.0.1:{self.ops_port}"
        inherited = {name: text for name, text in os.environ.items() if not name.startswith("SLUICE_")}
        metrics = {"SLUICE_METRICS_BIND": f"127.0.0.1:{self.metrics_port}"}
        return inherited | placed | metrics | {"PORT": str(self.port), "WORKERS": "1", "SLUICE_DRAIN_SECONDS": "2"}

    def command(self, unit: str, name: str = "ExecStart") -> list[str]:
        return value(unit, name).replace("/opt/sluice/.venv/bin/python", sys.executable).split()

    def start(self, unit: str, **extra: str) -> None:
        with (self.folder / unit).open("ab") as log:
            self.processes[unit] = subprocess.Popen(
                self.command(unit),
                cwd=HOME,
                env=self.environment(unit) | extra,
                stdout=log,
                stderr=log,
                preexec_fn=die_with_parent(),  # noqa: PLW1509 - two system calls, no lock
            )

    def stop(self, unit: str) -> int:
        process = self.processes[unit]
        process.send_signal(signal.Signals[value(unit, "KillSignal")])
        return process.wait(float(value(unit, "TimeoutStopSec")))

    def get(self, path: str, port: int = 0) -> bytes:
        with urllib.request.urlopen(f"http://127.0.0.1:{port or self.port}{path}", timeout=10) as answer:
            body: bytes = answer.read()
            return body


@pytest.fixture
def machine() -> Iterator[Machine]:
    with tempfile.TemporaryDirectory(prefix="sluice-units-", dir="/tmp") as folder:
        made = Machine(Path(folder))
        try:
            yield made
        finally:
            for process in made.processes.values():
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                process.wait()


def test_their_commands_start_serve_reload_and_stop_in_their_order(machine: Machine) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notified:
        notified.bind(str(machine.folder / "notify"))
        notified.settimeout(START_SECONDS_MAX)
        # NGINX before the workers: it finds their sockets when they come.
        machine.start("sluice-nginx")
        machine.start("sluice-exporter")
        machine.start("sluice", NOTIFY_SOCKET=str(machine.folder / "notify"))
        assert b"READY=1" in notified.recv(1024)
        until(lambda: answers(machine, "/readyz"), START_SECONDS_MAX, "it is ready")
        assert b"Active connections" in machine.get("/stub_status", machine.ops_port)
        assert b"sluice_nginx_up 1.0" in machine.get("/metrics", machine.metrics_port)

        before = set((machine.folder / "state/nginx").iterdir())
        reload = machine.command("sluice-nginx", "ExecReload")
        subprocess.run(reload, cwd=HOME, env=machine.environment("sluice-nginx"), check=True, timeout=30)
        assert machine.get("/livez")
        assert set((machine.folder / "state/nginx").iterdir()) >= before

        assert [machine.stop(unit) for unit in ("sluice", "sluice-nginx")] == [0, 0]
        assert machine.stop("sluice-exporter") in (0, -signal.SIGTERM)


def test_an_nginx_that_was_killed_starts_again_beside_what_it_left(machine: Machine) -> None:
    machine.start("sluice-nginx")
    until(lambda: answers(machine, "/nginx", machine.ops_port), START_SECONDS_MAX, "NGINX answers")
    children = subprocess.run(
        ["pgrep", "-P", str(machine.processes["sluice-nginx"].pid)], capture_output=True, text=True
    ).stdout.split()
    # As systemd does with what is left of a unit.
    for pid in [machine.processes["sluice-nginx"].pid, *map(int, children)]:
        os.kill(pid, signal.SIGKILL)
    machine.processes["sluice-nginx"].wait()
    assert (machine.folder / "run/ops.sock").exists()
    time.sleep(0.1)
    machine.start("sluice-nginx")
    until(lambda: answers(machine, "/nginx", machine.ops_port), START_SECONDS_MAX, "NGINX answers again")
    assert machine.stop("sluice-nginx") == 0


def answers(machine: Machine, path: str, port: int = 0) -> bool:
    with contextlib.suppress(OSError):
        return bool(machine.get(path, port))
    return False
