"""The exporter, as the process that `make run` starts."""

import gzip
import json
import os
import platform
import socket
import struct
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from app.observability import metrics
from app.observability.exporter import BEAT_AGE_SECONDS_MAX
from app.observability.figure_files import FigureFiles
from app.observability.figures import Figures
from app.observability.places import claim
from app.version import VERSION
from tests.support.chain import free_port
from tests.support.launched import HOME
from tests.support.scrape import scrape

START_SECONDS_MAX = 20.0
COMMAND = [sys.executable, "-m", "app.observability.exporter"]


@contextmanager
def exporter(**env: str) -> Iterator[str]:
    """A running one; its address."""
    port = free_port()
    env = os.environ | {"SLUICE_METRICS_BIND": f"127.0.0.1:{port}", "WORKERS": "2"} | env
    with subprocess.Popen(COMMAND, cwd=HOME, env=env) as process:
        try:
            wait_until_listening(port)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()


def wait_until_listening(port: int) -> None:
    deadline = time.monotonic() + START_SECONDS_MAX
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            return
        except ConnectionRefusedError:
            assert time.monotonic() < deadline
            time.sleep(0.02)


def get(address: str) -> tuple[int, str, str]:
    """Status, type and body."""
    try:
        with urllib.request.urlopen(address, timeout=5) as answer:
            return answer.status, answer.headers["Content-Type"], answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers["Content-Type"], error.read().decode()


def beat(folder: Path, slot: int, age_seconds: float) -> None:
    file = folder / f"worker-{slot}.beat"
    file.touch()
    os.utime(file, (time.time() - age_seconds, time.time() - age_seconds))


def test_metrics_say_which_version_runs() -> None:
    with exporter() as address:
        status, content_type, body = get(f"{address}/metrics")
    assert status == 200
    assert content_type.startswith("text/plain; version=")
    assert f'sluice_build_info{{python="{platform.python_version()}",version="{VERSION}"}} 1.0' in body.splitlines()


def test_metrics_of_the_workers_come_from_their_files_as_openmetrics_too(tmp_path: Path) -> None:
    for _ in range(2):
        figures = Figures()
        figures.add(metrics.HEARTBEATS, 3)
        FigureFiles(claim(tmp_path)).write(figures)
    with exporter(SLUICE_METRICS_DIR=str(tmp_path)) as address:
        body = get(f"{address}/metrics")[2].splitlines()
        found = scrape(address)
    assert "sluice_heartbeats_total 6.0" in body
    assert found.value("sluice_heartbeats_total") == 6
    assert found.value("sluice_workers_alive") == 2
    assert found.value("sluice_workers") == 2


def test_a_scraper_that_takes_gzip_gets_it() -> None:
    with exporter() as address:
        request = urllib.request.Request(f"{address}/metrics", headers={"Accept-Encoding": "gzip"})
        with urllib.request.urlopen(request, timeout=5) as answer:
            assert answer.headers["Content-Encoding"] == "gzip"
            assert b"sluice_build_info" in gzip.decompress(answer.read())


def test_the_end_of_a_certificate_is_told(tmp_path: Path) -> None:
    file, over = tmp_path / "tls.crt", datetime.now(UTC).replace(microsecond=0) + timedelta(days=3)
    file.write_bytes(certificate(over))
    with exporter(SLUICE_TLS_CERTIFICATE=str(file)) as address:
        assert scrape(address).value("sluice_certificate_expiry_timestamp_seconds") == over.timestamp()
        file.write_text("not yet")
        assert "sluice_certificate_expiry_timestamp_seconds" not in scrape(address).names()


def certificate(over: datetime) -> bytes:
    """One that signs itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    made = x509.CertificateBuilder(name, name, key.public_key(), 1, over - timedelta(days=9), over)
    return made.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM)


def test_the_age_of_each_workers_sign_of_life_is_told(tmp_path: Path) -> None:
    beat(tmp_path, 1, 0)
    beat(tmp_path, 2, 12)
    with exporter(SLUICE_SOCKET_DIR=str(tmp_path)) as address:
        found = scrape(address)
    assert found.value("sluice_worker_heartbeat_age_seconds", slot="1") < 10
    assert 12 <= found.value("sluice_worker_heartbeat_age_seconds", slot="2") < 22


def test_workers_whose_loops_turn_are_alive(tmp_path: Path) -> None:
    beat(tmp_path, 1, 0)
    beat(tmp_path, 2, BEAT_AGE_SECONDS_MAX / 2)
    with exporter(SLUICE_SOCKET_DIR=str(tmp_path)) as address:
        status, content_type, body = get(f"{address}/livez")
    assert (status, content_type) == (200, "application/json")
    assert json.loads(body) == {"status": "ok", "stale_slots": []}


@pytest.mark.parametrize("hung", [1, 2])
def test_a_worker_that_hangs_or_is_missing_is_named(tmp_path: Path, hung: int) -> None:
    for slot in (1, 2):
        beat(tmp_path, slot, BEAT_AGE_SECONDS_MAX + 1 if slot == hung else 0)
    with exporter(SLUICE_SOCKET_DIR=str(tmp_path), WORKERS="3") as address:
        status, _, body = get(f"{address}/livez")
    assert status == 503
    assert json.loads(body) == {"status": "stale", "stale_slots": [hung, 3]}


def test_a_worker_that_has_just_started_is_alive_before_its_first_beat(tmp_path: Path) -> None:
    beat(tmp_path, 1, 0)
    (tmp_path / "worker-2.sock").touch()
    with exporter(SLUICE_SOCKET_DIR=str(tmp_path)) as address:
        assert get(f"{address}/livez")[0] == 200


def test_without_sockets_of_their_own_nothing_is_asked_of_the_workers() -> None:
    with exporter() as address:
        assert get(f"{address}/livez")[0] == 200


def test_any_other_address_is_a_404() -> None:
    with exporter() as address:
        assert get(f"{address}/")[0] == 404


def test_a_client_that_says_nothing_holds_nobody_up() -> None:
    with exporter() as address, socket.create_connection(("127.0.0.1", int(address.rpartition(":")[2]))):
        assert get(f"{address}/metrics")[0] == 200


@pytest.mark.parametrize("address", ["taken", "127.0.0.1:port", "nowhere"])
def test_an_address_that_cannot_be_used_is_said_in_one_line(address: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        if address == "taken":
            address = f"127.0.0.1:{other.getsockname()[1]}"
        env = os.environ | {"SLUICE_METRICS_BIND": address}
        result = subprocess.run(COMMAND, cwd=HOME, env=env, capture_output=True, text=True, timeout=START_SECONDS_MAX)
    assert result.returncode == 1
    assert len(result.stderr.splitlines()) == 1
    assert result.stderr.startswith(f"sluice: SLUICE_METRICS_BIND: cannot listen on {address}: ")


def test_scrapers_that_give_up_leave_no_word_among_the_log_lines(capfd: pytest.CaptureFixture[str]) -> None:
    with exporter() as url:
        port = int(url.rpartition(":")[2])
        for _ in range(20):
            with socket.create_connection(("127.0.0.1", port)) as client:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # closes by a reset
                client.sendall(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert "sluice_build_info" in urllib.request.urlopen(f"{url}/metrics").read().decode()

    assert capfd.readouterr().err == ""
