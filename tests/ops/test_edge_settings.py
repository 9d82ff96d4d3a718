"""Whatever the settings accept, NGINX does; what it would refuse is refused before, by the variable's name."""

import os
from pathlib import Path

import pytest

from app.settings import SettingsError, load_settings
from deploy.edge import Edge
from deploy.preflight import find_nginx
from tests.support.chain import free_port

LONGEST_NAME = ".".join(["x" * 63] * 3 + ["x" * 61])


@pytest.fixture(autouse=True)
def empty_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("SLUICE_") or name in ("PORT", "WORKERS"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("PORT", str(free_port()))


def prepare(prefix: Path) -> Edge:
    """As a start does, with `nginx -t`."""
    settings = load_settings()
    sockets = [prefix / f"worker-{slot}.sock" for slot in range(1, settings.workers + 1)]
    edge = Edge(settings, find_nginx(), prefix / "nginx", prefix / "ops.sock", sockets)
    edge.prepare()
    return edge


@pytest.mark.parametrize(
    "environment",
    [
        {"SLUICE_EDGE_STREAMS_MAX": "65535", "SLUICE_CLIENT_STREAMS_MAX": "65535"},
        {"SLUICE_EDGE_STREAMS_MAX": "1", "SLUICE_CLIENT_STREAMS_MAX": "1", "SLUICE_CLIENT_REQUESTS_PER_SECOND": "1"},
        {"SLUICE_CLIENT_REQUESTS_PER_SECOND": "100000"},
        # What follows from these is more than NGINX counts.
        {"WORKERS": "256"},
        {"SLUICE_STREAMS_MAX": "100000", "WORKERS": "2"},
        {"SLUICE_HOST": "::1"},
        {"SLUICE_HOST": "0.0.0.0"},
        {"SLUICE_HOST": "localhost"},
        {"SLUICE_SERVER_NAMES": f"api.example *.api.example .x.example www.* [::1] {LONGEST_NAME}"},
        {"SLUICE_TRUSTED_PROXIES": "10.0.0.0/8, 2001:db8::/32, unix:"},
        {"SLUICE_OPS_BIND": "127.0.0.1:65535"},
        {"SLUICE_OPS_BIND": "[::1]:1024"},
    ],
    ids=str,
)
def test_nginx_takes_every_value_that_the_settings_take(
    environment: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    edge = prepare(tmp_path)
    limits = (edge.prefix / "values" / "location-limits.conf").read_text()
    if "WORKERS" in environment:
        assert "limit_conn sluice_streams 65535;" in limits


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SLUICE_EDGE_STREAMS_MAX", "65536"),
        ("SLUICE_EDGE_STREAMS_MAX", "0"),
        ("SLUICE_CLIENT_STREAMS_MAX", "65536"),
        ("SLUICE_CLIENT_REQUESTS_PER_SECOND", "100001"),
        ("SLUICE_HOST", "[::1]"),
        ("SLUICE_HOST", "127.0.0.1; daemon on"),
        ("SLUICE_HOST", ""),
        ("SLUICE_SERVER_NAMES", "a;b"),
        ("SLUICE_SERVER_NAMES", "*"),
        ("SLUICE_SERVER_NAMES", "a.*.b"),
        ("SLUICE_SERVER_NAMES", f"{LONGEST_NAME}x"),
        ("SLUICE_TRUSTED_PROXIES", "lb.example"),
        ("SLUICE_TRUSTED_PROXIES", "10.0.0.0/99"),
        ("SLUICE_TRUSTED_PROXIES", "10.0.0.1; daemon on"),
        ("SLUICE_OPS_BIND", "127.0.0.1"),
        ("SLUICE_OPS_BIND", "127.0.0.1:65536"),
        ("SLUICE_OPS_BIND", '127.0.0.1:9000"; daemon on; "'),
    ],
)
def test_what_nginx_would_refuse_is_refused_by_the_variables_name(
    name: str, value: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match=f"^{name}: "):
        prepare(tmp_path)


def test_two_ports_that_are_one_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"TLS_CERTIFICATE": "/c.pem", "TLS_KEY": "/k.pem", "TLS_PORT": os.environ["PORT"]}.items():
        monkeypatch.setenv(f"SLUICE_{name}", value)
    with pytest.raises(SettingsError, match="SLUICE_TLS_PORT"):
        prepare(tmp_path)
