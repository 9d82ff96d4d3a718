"""The ledger of waits against the files that are run: each number is where it belongs, and they fit each other."""

import os
import re
import runpy
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from app import timeouts
from app.settings import Settings
from app.timeouts import AROUND, INEQUALITIES, TimeoutsError, check, ledger
from deploy import nginx_config, pod_nginx
from deploy.nginx_build import Build
from scripts import timeouts_reference
from tests.support.nginx_conf import Directive, load

HOME = Path(__file__).resolve().parents[2]
NEWEST = Build(version=(1, 30, 4), openssl=(3, 5), http3=True)
# Where NGINX's waits stand, in which block.
OF_HTTP = {
    "nginx_client_header_seconds": "client_header_timeout",
    "nginx_client_body_seconds": "client_body_timeout",
    "nginx_client_keepalive_seconds": "keepalive_timeout",
    "nginx_keepalive_min_seconds": "keepalive_min_timeout",
    "nginx_send_seconds": "send_timeout",
    "nginx_lingering_seconds": "lingering_timeout",
    "nginx_connect_seconds": "proxy_connect_timeout",
    "nginx_search_seconds": "proxy_next_upstream_timeout",
    "nginx_request_seconds": "proxy_send_timeout",
    "nginx_read_seconds": "proxy_read_timeout",
}


def seconds(text: str) -> float:
    found = re.fullmatch(r"(\d+(?:\.\d+)?)s?", text)
    assert found, text
    return float(found[1])


def of_nginx(conf: Directive) -> dict[str, float]:
    http = conf.only("http")
    found = {wait: seconds(http.one(name)) for wait, name in OF_HTTP.items()}
    found["nginx_upstream_keepalive_seconds"] = seconds(http.only("upstream").one("keepalive_timeout"))
    found["nginx_shutdown_seconds"] = seconds(conf.one("worker_shutdown_timeout"))
    return found


def of_gunicorn() -> dict[str, float]:
    """As Gunicorn reads it."""
    found = runpy.run_path(str(HOME / "deploy/gunicorn.conf.py"))
    return {
        "kill_seconds": float(found["graceful_timeout"]),
        "watchdog_seconds": float(found["timeout"]),
        "keepalive_seconds": float(found["keepalive"]),
    }


def of_settings() -> dict[str, float]:
    settings = Settings()
    return {name: getattr(settings, name) for name in ledger().keys() & Settings.model_fields.keys()}


def of_yaml(path: Path, *names: str) -> Iterator[tuple[str, Any]]:
    """Every value of these keys, wherever they stand."""

    def walk(node: Any) -> Iterator[tuple[str, Any]]:
        for key, value in node.items() if isinstance(node, dict) else enumerate(node):
            if key in names:
                yield key, value
            if isinstance(value, dict | list):
                yield from walk(value)

    for document in yaml.safe_load_all(path.read_text()):
        yield from walk(document or {})


def of_files() -> dict[str, float]:
    """What supervisor, systemd, Kubernetes, Compose and the collector hold."""
    found: dict[str, float] = {}
    for place in timeouts_reference.PLACES:
        for _, number in place.found():
            assert found.setdefault(place.wait, float(number)) == float(number), place.wait
    return found


@pytest.fixture
def final() -> dict[str, float]:
    """Each wait, as the file has it that is run."""
    with tempfile.TemporaryDirectory() as folder:
        values = nginx_config.values(listen="127.0.0.1:1", sockets=[Path("/x")], waits=ledger(), streams_max=1)
        conf = load(nginx_config.render(Path(folder), values, NEWEST))
        return of_nginx(conf) | of_gunicorn() | of_settings() | of_files()


@pytest.fixture(autouse=True)
def defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith("SLUICE_"):
            monkeypatch.delenv(name)


def test_the_final_files_hold_the_ledger_s_numbers(final: dict[str, float]) -> None:
    assert final == {name: ledger()[name] for name in final}


def test_every_inequality_holds_between_the_final_files(final: dict[str, float]) -> None:
    for (shorter, left), (longer, right), otherwise in (*INEQUALITIES, *AROUND):
        waits = ledger() | final
        assert left(waits) < right(waits), f"{shorter} < {longer}, else {otherwise}"


def test_every_wait_of_nginx_and_of_those_who_stop_it_is_in_a_file(final: dict[str, float]) -> None:
    wanted = {name for name in ledger() if name.startswith(("nginx_", "exporter_", "gunicorn_", "pod_", "trace_dec"))}
    # nginx_quit_seconds is in the pod's manifest, which its own tests read.
    assert wanted - final.keys() <= {"nginx_quit_seconds"}


@pytest.mark.parametrize("place", timeouts_reference.PLACES, ids=lambda place: f"{place.wait}-{place.files}")
def test_each_place_is_there(place: timeouts_reference.Place) -> None:
    assert place.found(), f"{place.pattern} in none of {place.files}"


def test_the_manifests_give_a_pod_its_grace() -> None:
    found = [value for _, value in of_yaml(HOME / "k8s/base/waits.yaml", "terminationGracePeriodSeconds")]
    assert found == [ledger()["pod_grace_seconds"]]


def test_compose_waits_for_gunicorn_as_long_as_its_drain_takes() -> None:
    services = yaml.safe_load((HOME / "deploy/compose.yaml").read_text())["services"]
    assert seconds(services["sluice"]["stop_grace_period"]) > ledger()["kill_seconds"]


def test_a_collector_waits_for_the_end_of_the_longest_stream() -> None:
    found = [seconds(value) for _, value in of_yaml(HOME / "deploy/otel/collector.yaml", "decision_wait")]
    assert found
    assert min(found) > ledger()["stream_seconds_max"] + ledger()["trace_flush_seconds"]


def test_a_pod_s_nginx_follows_the_settings(tmp_path: Path) -> None:
    settings = Settings(socket_dir=tmp_path, workers=1, stream_seconds_max=2000, send_seconds=45)
    pod_nginx.write(settings, HOME / "nginx", tmp_path, "127.0.0.1:1")
    found = of_nginx(load(tmp_path / "nginx.conf"))
    assert found["nginx_read_seconds"] == found["nginx_shutdown_seconds"] == 2060


def test_whatever_a_setting_is_the_waits_that_follow_it_fit() -> None:
    for changed in (
        {"stream_seconds_max": 3000},
        {"drain_seconds": 900},
        {"send_seconds": 300},
        {"lease_seconds": 30},
    ):
        settings = Settings.model_validate(changed)
        check(changed | settings.derived_waits())


@pytest.mark.parametrize("number", range(len((*INEQUALITIES, *AROUND))))
def test_a_broken_inequality_is_named(number: int) -> None:
    """Each can be broken, by making its longer side as short as its shorter one."""
    inequality = (*INEQUALITIES, *AROUND)[number]
    (shorter, left), (longer, right), otherwise = inequality
    name = longer.split(" x ")[-1]
    # However much of it the longer side is.
    share = right(ledger()) / ledger()[name]
    with pytest.raises(TimeoutsError, match=re.escape(shorter)) as raised:
        check({name: left(ledger()) / share}, [inequality])
    assert otherwise in str(raised.value)


def test_the_generator_writes_a_number_that_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = tmp_path / "nginx/snippets/timeouts.conf"
    copy.parent.mkdir(parents=True)
    copy.write_text((HOME / "nginx/snippets/timeouts.conf").read_text().replace("send_timeout 60s", "send_timeout 61s"))
    place = next(place for place in timeouts_reference.PLACES if place.wait == "nginx_send_seconds")
    assert [number for _, number in place.found(tmp_path)] == ["61"]
    written = place.written(copy.read_text())
    assert "send_timeout 60s" in written
    assert "proxy_send_timeout 30s" in written


def test_every_wait_says_what_it_means_and_why() -> None:
    for name, entry in yaml.safe_load(timeouts.LEDGER.read_text()).items():
        assert set(entry) == {"seconds", "meaning", "reason"}, name
        assert name.endswith(("_seconds", "_seconds_max")), f"{name}: no unit"
        assert entry["meaning"].endswith("."), name
        assert entry["reason"].endswith("."), name


def test_a_workers_heartbeat_is_a_file_in_memory() -> None:
    """On a disk that is slow, read-only or full it would look like a worker that hangs."""
    assert runpy.run_path(str(HOME / "deploy/gunicorn.conf.py"))["worker_tmp_dir"] == "/dev/shm"
