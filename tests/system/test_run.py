"""`make run`'s program, `deploy.run`, with real NGINX, Gunicorn and exporter: how it starts, refuses and stops."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from deploy import memory
from tests.support.chain import Chain, free_port
from tests.support.launched import HOME

# An idle chain stops in about two seconds; a busy machine gets ten times that.
GONE_SECONDS_MAX = 20.0
RESTART_SECONDS_MAX = 20.0


def until(condition: Callable[[], bool], seconds: float, what: str) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.05)


def alive(processes: list[psutil.Process]) -> list[psutil.Process]:
    return [p for p in processes if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]


def traces(chain: Chain) -> list[Path]:
    """Sockets, their temporary names, heartbeats and pid files."""
    return [path for mark in ("*.sock*", "*.pid", "*.beat") for path in chain.state_dir.rglob(mark)]


def status(chain: Chain, path: str) -> int:
    try:
        with urllib.request.urlopen(chain.url + path, timeout=5) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def open_stream(chain: Chain, *, tokens: int) -> subprocess.Popen[str]:
    """curl, reading ten tokens a second."""
    body = {"prompt": "x", "stream": True, "simulator": {"tokens": tokens, "tokens_per_second": 10}}
    return subprocess.Popen(
        ["curl", "-sN", f"{chain.url}/api/v1/generate", "-H", "Content-Type: application/json", "-d", json.dumps(body)],
        stdout=subprocess.PIPE,
        text=True,
    )


def refusal(chain: Chain, seconds: float = 30.0) -> tuple[int, str]:
    """Exit code and output of a chain that does not start."""
    with chain:
        code = chain.process.wait(seconds)
        return code, chain.log


def one_line(output: str) -> str:
    lines = output.splitlines()
    assert len(lines) == 1, output
    assert lines[0].startswith("sluice: ")
    return lines[0]


def test_it_says_what_listens_where_and_what_to_try() -> None:
    with Chain(workers=1) as chain:
        command = chain.log[chain.log.index("  curl -N") :].split("\n\n")[0]
        output = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=60).stdout
        assert chain.url in chain.log
        assert f"{chain.metrics_url}/metrics" in chain.log
    assert output.count("event: token") > 1
    assert output.count("event: done") == 1


def test_ctrl_c_ends_with_0_and_leaves_nothing() -> None:
    with Chain() as chain:
        processes = chain.processes()
        assert traces(chain)
        assert chain.stop(signal.SIGINT) == 0
        assert alive(processes) == []
        assert traces(chain) == []
        assert "Traceback" not in chain.log


def test_term_ends_like_ctrl_c() -> None:
    with Chain(workers=1) as chain:
        processes = chain.processes()
        assert chain.stop(signal.SIGTERM) == 0
        assert alive(processes) == []
        assert traces(chain) == []


def test_ctrl_c_lets_an_open_stream_finish() -> None:
    with Chain({"SLUICE_DRAIN_SECONDS": "20"}, workers=1) as chain, open_stream(chain, tokens=40) as client:
        assert client.stdout is not None
        begin = client.stdout.readline()
        assert chain.stop(signal.SIGINT) == 0
        output = begin + client.stdout.read()
        assert client.wait(5) == 0
    assert output.count("event: token") == 40
    assert output.count("event: done") == 1


def test_a_second_ctrl_c_stops_at_once() -> None:
    with Chain({"SLUICE_DRAIN_SECONDS": "600"}, workers=1) as chain, open_stream(chain, tokens=6000) as client:
        assert client.stdout is not None
        client.stdout.readline()
        processes = chain.processes()
        chain.process.send_signal(signal.SIGINT)
        chain.wait_for("Handling signal: term")
        time.sleep(1)  # a person's second thought; two signals at once are one request
        assert chain.stop(signal.SIGINT, GONE_SECONDS_MAX) == 0
        assert alive(processes) == []
        assert traces(chain) == []
        assert client.wait(5) != 0  # cut, and seen to be cut


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_it_ends_with_make_whatever_ends_make(number: signal.Signals) -> None:
    with Chain(workers=1, command=["make", "--silent", "run"]) as chain:
        processes = chain.processes()
        assert "make" in processes[0].cmdline()
        chain.process.send_signal(number)  # to make alone, not to the whole group as a terminal does
        until(lambda: not alive(processes), GONE_SECONDS_MAX, f"all ended: {alive(processes)}")
        assert traces(chain) == []


def test_killed_itself_it_leaves_nothing() -> None:
    with Chain() as chain:
        processes = chain.processes()
        chain.process.kill()
        until(lambda: not alive(processes), GONE_SECONDS_MAX, f"all ended: {alive(processes)}")


def test_a_killed_supervisor_ends_everything_with_1() -> None:
    with Chain(workers=1) as chain:
        processes = chain.processes()
        psutil.Process(chain.gunicorn_pid()).parent().kill()
        assert chain.process.wait(GONE_SECONDS_MAX) == 1
        assert alive(processes) == []
        assert traces(chain) == []


def test_a_killed_gunicorn_comes_back_and_its_workers_go() -> None:
    with Chain() as chain:
        master, workers = chain.gunicorn_pid(), [psutil.Process(pid) for pid in chain.worker_pids()]
        os.kill(master, signal.SIGKILL)
        until(lambda: not alive(workers), RESTART_SECONDS_MAX, "the old workers ended")
        until(lambda: status(chain, "/readyz") == 200, RESTART_SECONDS_MAX, "ready again")
        assert chain.gunicorn_pid() != master
        assert chain.process.poll() is None


def test_a_killed_nginx_comes_back() -> None:
    with Chain(workers=1) as chain:
        master = chain.nginx_pid()
        os.kill(master, signal.SIGKILL)

        def replaced() -> bool:
            try:
                return chain.nginx_pid() != master and status(chain, "/readyz") == 200
            except (OSError, AssertionError):
                return False

        until(replaced, RESTART_SECONDS_MAX, "NGINX serves again, though its processes had the port")


def test_a_gunicorn_that_cannot_boot_is_said_in_one_line() -> None:
    chain = Chain({"GUNICORN_CMD_ARGS": "--worker-class=nowhere.Worker"}, workers=1, expect_ready=False)
    with chain:
        assert chain.process.wait(GONE_SECONDS_MAX) == 1
        assert chain.log.splitlines()[-1] == "sluice: gunicorn does not start; its own words are above"
        assert traces(chain) == []


@pytest.mark.parametrize("setting", ["PORT", "SLUICE_METRICS_BIND"])
def test_a_taken_port_is_named(setting: str) -> None:
    chain = Chain(expect_ready=False)
    port = chain.port if setting == "PORT" else chain.metrics_port
    with socket.create_server(("127.0.0.1", port)):
        code, output = refusal(chain)
    assert code == 1
    line = one_line(output)
    assert line.startswith(f"sluice: {setting}: port {port} ")
    assert f"{setting}=" in line.split("Choose another: ")[1]


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("WORKERS", "none"),
        ("PORT", "70000"),
        ("SLUICE_HEARTBEAT_SECONDS", "-1"),
        ("SLUICE_METRICS_BIND", "9464"),
        ("SLUICE_STATE_DIR", "/proc/sluice"),
        ("SLUICE_STATE_DIR", "/tmp/" + "long/" * 20),
        ("SLUICE_STATE_DIR", "/tmp/a;b"),
    ],
)
def test_a_bad_setting_is_named(setting: str, value: str) -> None:
    code, output = refusal(Chain({setting: value}, expect_ready=False))
    assert code == 2
    assert one_line(output).startswith(f"sluice: {setting}: ")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("models: [", "line 1"),
        ("models:\n  m:\n    - {provider: oracle}\n", "line 3"),
        (None, "No such file"),
    ],
)
def test_an_unusable_models_file_is_named_with_the_line(tmp_path: Path, text: str | None, says: str) -> None:
    file = tmp_path / "models.yaml"
    if text is not None:
        file.write_text(text)
    code, output = refusal(Chain({"SLUICE_CONFIG": str(file)}, expect_ready=False))
    assert code == 2
    line = one_line(output)
    assert line.startswith(f"sluice: SLUICE_CONFIG: {file}")
    assert says in line


def test_a_second_instance_is_refused_and_the_first_is_unharmed() -> None:
    with Chain(workers=1) as chain:
        second = Chain({"SLUICE_STATE_DIR": str(chain.state_dir)}, expect_ready=False)
        code, output = refusal(second)
        assert code == 1
        assert f"another instance runs on {chain.state_dir} (process {chain.pid})" in one_line(output)
        assert status(chain, "/readyz") == 200


def test_what_a_killed_instance_left_is_no_obstacle(tmp_path: Path) -> None:
    left = memory.folder_of(tmp_path / "of another that was killed")
    assert left is not None
    memory.mark(left, tmp_path / "of another that was killed")
    with Chain(workers=1) as first:
        everything = first.processes()
        for process in everything:  # or NGINX's master would replace its killed worker before its own turn comes
            process.suspend()
        for process in everything:
            process.kill()
        first.process.wait()
        assert traces(first)
        assert not left.exists()
        in_memory = memory.folder_of(first.state_dir)
        assert in_memory is not None
        with Chain({"SLUICE_STATE_DIR": str(first.state_dir)}, workers=1) as second:
            assert status(second, "/readyz") == 200
        assert not in_memory.exists()


def test_a_missing_nginx_is_said_in_one_line(tmp_path: Path) -> None:
    nginx = shutil.which("nginx", path="/usr/local/sbin:/usr/sbin")
    hide = ["unshare", "--map-root-user", "--mount", "sh", "-c"]
    if nginx and subprocess.run([*hide, f"mount --bind /dev/null {nginx}"], capture_output=True).returncode:
        pytest.skip("may not hide NGINX from a process")
    # Without apt-get on its path, so that it does not try to install what is only hidden.
    command = f"mount --bind /dev/null {nginx}; PATH={tmp_path} exec {sys.executable} -m deploy.run"
    with tempfile.TemporaryDirectory(dir="/tmp") as state_dir:
        env = os.environ | {"SLUICE_STATE_DIR": state_dir, "PORT": str(free_port())}
        env["SLUICE_METRICS_BIND"] = f"127.0.0.1:{free_port()}"
        result = subprocess.run(
            [*hide, command], cwd=HOME, env=env, capture_output=True, text=True, timeout=GONE_SECONDS_MAX
        )
    assert result.returncode == 1
    assert "nginx is missing" in one_line(result.stderr)
