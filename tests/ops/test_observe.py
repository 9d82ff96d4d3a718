"""`make observe` where something is wrong: one clear line, an exit code, and nothing left running."""

import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from deploy.observe import configuration
from deploy.processes import die_with_parent
from tests.support.chain import free_port
from tests.support.launched import HOME
from tests.support.workers import until

SECONDS_MAX = 60.0

pytestmark = pytest.mark.skipif(
    shutil.which("prometheus") is None or shutil.which("prometheus-alertmanager") is None,
    reason="prometheus or prometheus-alertmanager is missing",
)


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "deploy.observe", *arguments]


def env(folder: Path) -> dict[str, str]:
    return {"PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin", "SLUICE_STATE_DIR": str(folder)}


def refused(folder: Path, *arguments: str) -> tuple[int, str]:
    """How it ends that cannot begin: the exit code and what it said."""
    result = subprocess.run(
        command(*arguments), cwd=HOME, env=env(folder), capture_output=True, text=True, timeout=SECONDS_MAX
    )
    return result.returncode, result.stderr


@contextmanager
def running(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """One that watches nobody, on ports of its own, ready."""
    ports = [*("--prometheus", f"127.0.0.1:{free_port()}"), *("--alertmanager", f"127.0.0.1:{free_port()}")]
    with subprocess.Popen(
        command(*ports),
        cwd=HOME,
        env=env(folder),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=die_with_parent(),  # noqa: PLW1509 - two system calls, no lock
    ) as process:
        try:
            assert process.stdout is not None
            assert any("observing http://127.0.0.1:9464/metrics" in line for line in process.stdout)
            yield process
        finally:
            if process.poll() is None:
                process.terminate()


def programs(process: subprocess.Popen[str]) -> dict[str, psutil.Process]:
    return {child.name(): child for child in psutil.Process(process.pid).children()}


def test_a_port_that_is_taken_is_named_with_what_to_do(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        code, said = refused(tmp_path, "--prometheus", f"127.0.0.1:{port}")

    assert code == 1
    assert said.startswith(f"sluice: --prometheus: port {port} on 127.0.0.1 cannot be used")
    assert said.endswith(f'Choose another: make observe ARGS="--prometheus 127.0.0.1:{port % 65_535 + 1}"\n')


def test_an_address_that_is_none_is_refused(tmp_path: Path) -> None:
    assert refused(tmp_path, "--alertmanager", "9093") == (
        2,
        "sluice: --alertmanager: should be host:port (it is '9093')\n",
    )


def test_one_that_ends_takes_the_other_along(tmp_path: Path) -> None:
    with running(tmp_path) as process:
        found = programs(process)
        assert len(found) == 2
        next(child for name, child in found.items() if name == "prometheus").kill()

        _, said = process.communicate(timeout=SECONDS_MAX)

        assert process.returncode == 1
        assert said.strip().endswith("sluice: prometheus ended with -9; its own words are above")
        until(lambda: not any(child.is_running() for child in found.values()), SECONDS_MAX, "both are gone")


def test_both_end_with_it_also_when_it_is_killed(tmp_path: Path) -> None:
    with running(tmp_path) as process:
        found = programs(process)
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=SECONDS_MAX)

        until(lambda: not any(child.is_running() for child in found.values()), SECONDS_MAX, "both are gone")


def test_it_goes_on_with_what_it_saw_before(tmp_path: Path) -> None:
    for _ in range(2):
        with running(tmp_path) as process:
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=SECONDS_MAX)
            assert process.returncode == 0

    assert (tmp_path / "observe/prometheus/wal").is_dir()


def test_its_prometheus_is_that_of_the_containers_with_other_addresses() -> None:
    made = configuration("127.0.0.1:9464", "127.0.0.1:9090", "127.0.0.1:9093", 5)

    assert {job["job_name"]: job["static_configs"][0]["targets"] for job in made["scrape_configs"]} == {
        "sluice": ["127.0.0.1:9464"],
        "prometheus": ["127.0.0.1:9090"],
    }
    assert made["alerting"]["alertmanagers"][0]["static_configs"][0]["targets"] == ["127.0.0.1:9093"]
    assert made["global"]["scrape_timeout"] == made["global"]["evaluation_interval"] == "5s"
