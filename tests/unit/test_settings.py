"""Every knob is described, and a bad value stops the start with one line that names its variable."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import ValidationError

from app.settings import Settings, SettingsError, load_settings

NO_PREFIX = {"port": "PORT", "workers": "WORKERS"}
FIELDS = sorted(Settings.model_fields)
# Any text is a path or a name as far as the settings can tell.
CHECKED = [name for name in FIELDS if Settings.model_fields[name].annotation not in {str, Path, Path | None}]


def variable(name: str) -> str:
    return NO_PREFIX.get(name, f"SLUICE_{name.upper()}")


@pytest.fixture(autouse=True)
def empty_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.upper().startswith("SLUICE_") or name.upper() in NO_PREFIX.values():
            monkeypatch.delenv(name)


def refusal() -> str:
    """The one line that the start ends with."""
    with pytest.raises(SettingsError) as raised:
        load_settings()
    message = str(raised.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize("name", FIELDS)
def test_every_setting_is_described_in_a_sentence(name: str) -> None:
    description = Settings.model_fields[name].description
    assert description is not None
    assert len(description) > 20
    assert description.endswith(".")
    assert "\n" not in description


@pytest.mark.parametrize("name", CHECKED)
def test_a_bad_value_is_named_by_its_variable_and_shown(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable(name), "so\nso")
    assert refusal().startswith(f"{variable(name)}: ")
    assert r"'so\nso'" in refusal()


@pytest.mark.parametrize("name", [name for name in FIELDS if name.endswith("_seconds")])
@pytest.mark.parametrize("value", ["0", "-1", "nan", "inf", "1e9", ""])
def test_a_wait_is_a_time_above_zero_and_below_a_day(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A heartbeat of 0 s has flooded clients of other servers with thousands of pings a second."""
    monkeypatch.setenv(variable(name), value)
    assert refusal().startswith(f"{variable(name)}: ")


@pytest.mark.parametrize("value", ["0", "65536", "-1", "80a", "8080.5", ""])
def test_a_port_is_a_port(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PORT", value)
    assert refusal().startswith("PORT: ")


@pytest.mark.parametrize("value", ["0", "257", "-4", "many", ""])
def test_workers_are_a_number_that_a_machine_can_hold(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKERS", value)
    assert refusal().startswith("WORKERS: ")


def test_port_and_workers_have_no_prefix(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PORT", "9090")
    monkeypatch.setenv("WORKERS", "3")
    monkeypatch.setenv("SLUICE_PORT", "1")
    monkeypatch.setenv("SLUICE_WORKERS", "1")
    settings = load_settings()
    assert (settings.port, settings.workers) == (9090, 3)


@pytest.fixture
def one_core() -> Iterator[None]:
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(allowed)})
    yield
    os.sched_setaffinity(0, allowed)


@pytest.mark.usefixtures("one_core")
def test_there_is_a_worker_for_each_core_that_the_process_may_use() -> None:
    """In a container the machine has more cores than that."""
    assert load_settings().workers == 1


def test_an_empty_environment_is_enough() -> None:
    settings = load_settings()
    assert (settings.environment, settings.port, settings.bind) == ("development", 8080, "127.0.0.1:8000")
    assert settings.metrics_bind == "127.0.0.1:9464"
    assert settings.config is None
    assert settings.heartbeat_seconds == 15


def test_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SLUICE_CONFIG", str(tmp_path / "models.yaml"))
    monkeypatch.setenv("SLUICE_HEARTBEAT_SECONDS", "2.5")
    monkeypatch.setenv("SLUICE_ENVIRONMENT", "production")
    monkeypatch.setenv("SLUICE_STREAM_LOG", "lmdb:///dev/shm/log")
    settings = load_settings()
    assert settings.config == tmp_path / "models.yaml"
    assert (settings.heartbeat_seconds, settings.environment) == (2.5, "production")


@pytest.mark.parametrize(("name", "value"), [("heartbeat_seconds", "500"), ("stream_ttl_seconds", "60")])
def test_waits_that_do_not_fit_each_other_are_refused_with_the_reason(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable(name), value)
    message = refusal()
    assert variable(name) in message
    assert "must be less than" in message
    assert ": else " in message


def test_production_refuses_a_log_that_its_workers_cannot_share(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLUICE_ENVIRONMENT", "production")
    monkeypatch.setenv("WORKERS", "2")
    monkeypatch.setenv("SLUICE_STREAM_LOG", "memory://")
    assert refusal().startswith("SLUICE_STREAM_LOG: ")
    monkeypatch.setenv("WORKERS", "1")
    assert load_settings().workers == 1


def test_a_longer_drain_lengthens_what_waits_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Gunicorn would otherwise kill workers that still drain."""
    usual = load_settings().derived_waits()["kill_seconds"]
    monkeypatch.setenv("SLUICE_DRAIN_SECONDS", "500")
    settings = load_settings()
    assert settings.derived_waits()["kill_seconds"] >= usual + 440


def test_settings_do_not_change_under_way() -> None:
    settings = load_settings()
    with pytest.raises(ValidationError):
        settings.port = 1  # type: ignore[misc]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("cors_origins", "app.example"),
        ("cors_origins", "https://app.example/"),
        ("cors_origins", "https://app.example, https://*.example"),
        ("cors_origins", "null"),
    ],
)
def test_what_is_no_origin_is_refused(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable(name), value)
    assert refusal().startswith(f"{variable(name)}: ")


def test_every_site_at_once_is_refused_with_credentials_and_in_production(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLUICE_CORS_ORIGINS", "*")
    assert load_settings().cors_allowed == ("*",)
    monkeypatch.setenv("SLUICE_CORS_CREDENTIALS", "yes")
    assert refusal().startswith("SLUICE_CORS_ORIGINS: * with SLUICE_CORS_CREDENTIALS ")
    monkeypatch.setenv("SLUICE_CORS_CREDENTIALS", "no")
    monkeypatch.setenv("SLUICE_ENVIRONMENT", "production")
    assert refusal().startswith("SLUICE_CORS_ORIGINS: * is only for development")
    monkeypatch.setenv("SLUICE_CORS_ORIGINS", "https://app.example:8443,http://[::1]:3000")
    assert load_settings().cors_allowed == ("https://app.example:8443", "http://[::1]:3000")


def test_a_request_never_waits_for_a_place_beyond_a_heartbeat(monkeypatch: pytest.MonkeyPatch) -> None:
    """Overload is then always a status, whatever waits for an upstream behind it."""
    assert load_settings().derived_waits()["admission_seconds"] == load_settings().admission_seconds
    monkeypatch.setenv("SLUICE_HEARTBEAT_SECONDS", "1")
    assert load_settings().derived_waits()["admission_seconds"] < 0.5
    monkeypatch.setenv("SLUICE_HEARTBEAT_SECONDS", "20")
    monkeypatch.setenv("SLUICE_ADMISSION_SECONDS", "19")
    assert load_settings().derived_waits()["admission_seconds"] < 10
