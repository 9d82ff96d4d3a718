"""The pod as it is built: what its numbers must be to each other, and that what it names is there."""

import re
from collections.abc import Sequence
from pathlib import Path

import pytest
from fastapi.routing import APIRoute

from app.api import health
from app.catalog import load_catalog
from app.settings import Settings
from app.timeouts import INEQUALITIES, ledger
from scripts.kubernetes_golden import FOLDERS
from tests.support.manifests import (
    KUBERNETES,
    OVERLAYS,
    Manifest,
    container,
    containers,
    lasting,
    named,
    overlay,
    pod_of,
    rendered,
    settings,
    sluice_pod,
    workloads,
)

# Of AWS; Google and Azure give 30.
SPOT_NOTICE_SECONDS = 120
UNITS = {"Mi": 1024**2, "Gi": 1024**3}
every_overlay = pytest.mark.parametrize("name", OVERLAYS)


def size_bytes(quantity: str) -> int:
    number, unit = re.fullmatch(r"(\d+)(Mi|Gi)", quantity).groups()  # type: ignore[union-attr]
    return int(number) * UNITS[unit]


def settings_of(manifests: Sequence[Manifest], monkeypatch: pytest.MonkeyPatch) -> Settings:
    """What the app makes of the pod's environment."""
    for variable, value in settings(manifests).items():
        monkeypatch.setenv(variable, value)
    return Settings()


def read_settings(name: str, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """What it makes of an overlay's."""
    return settings_of(overlay(name), monkeypatch)


def waits_of(manifests: Sequence[Manifest], monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """The ledger, with what the settings and the manifest of the pod have in its place."""
    found, pod = settings_of(manifests, monkeypatch), sluice_pod(manifests)
    (sleep,) = re.findall(r"sleep (\d+);", container(pod, "nginx")["lifecycle"]["preStop"]["exec"]["command"][-1])
    own = {name: float(getattr(found, name)) for name in ledger().keys() & Settings.model_fields.keys()}
    return (ledger() | own | found.derived_waits()) | {
        "nginx_quit_seconds": float(sleep),
        "pre_stop_seconds": float(container(pod, "app")["lifecycle"]["preStop"]["sleep"]["seconds"]),
        "pod_grace_seconds": float(pod["terminationGracePeriodSeconds"]),
    }


def budget_seconds(probe: Manifest) -> int:
    """How long what it asks may fail."""
    return int(probe["periodSeconds"] * probe["failureThreshold"])


@pytest.mark.parametrize("folder", FOLDERS)
def test_the_waits_of_a_pod_keep_every_inequality(folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    waits = waits_of(rendered(folder), monkeypatch)
    for (shorter, left), (longer, right), consequence in INEQUALITIES:
        assert left(waits) < right(waits), f"{shorter} < {longer}: {consequence}"
    assert waits["pod_grace_seconds"] <= waits["node_grace_seconds"]
    # Time for processes to end behind the last bounded step.
    assert waits["pod_grace_seconds"] >= waits["pre_stop_seconds"] + waits["kill_seconds"] + 10


def test_a_pod_on_a_node_that_goes_hands_over_within_the_notice(monkeypatch: pytest.MonkeyPatch) -> None:
    waits = waits_of(rendered("tests/combinations/scaled"), monkeypatch)
    assert waits["drain_seconds"] < ledger()["drain_seconds"]
    text = (KUBERNETES / "components/spot/README.md").read_text()
    (drain, handed_over) = map(int, re.findall(r"(\d+) s into its drain, (\d+) s after the notice", text)[0])
    assert (drain, handed_over) == (waits["drain_seconds"], waits["pre_stop_seconds"] + waits["drain_seconds"])
    # The longer of the two notices; the shorter one cuts at the handover, as the README says.
    assert handed_over + waits["farewell_seconds"] + waits["cancel_seconds"] < SPOT_NOTICE_SECONDS


@every_overlay
def test_nginx_starts_before_the_app_and_stops_after_it(name: str) -> None:
    pod = sluice_pod(overlay(name))
    assert [one["name"] for one in containers(pod)] == ["nginx-config", "exporter", "nginx", "app"]
    assert [one["name"] for one in lasting(pod)] == ["exporter", "nginx", "app"]
    # What lets the next container start is asked of NGINX alone: the app comes after it.
    assert container(pod, "nginx")["startupProbe"].keys() & {"httpGet", "tcpSocket"} == {"tcpSocket"}


@every_overlay
def test_probes_ask_endpoints_that_exist_on_ports_that_are_declared(name: str) -> None:
    pod = sluice_pod(overlay(name))
    routes = {route.path for route in health.router.routes if isinstance(route, APIRoute)}
    ports = {port["containerPort"] for one in containers(pod) for port in one.get("ports", [])}
    app = container(pod, "app")
    asked = [app[kind]["httpGet"] for kind in ("startupProbe", "readinessProbe", "livenessProbe")]
    assert [each["path"] for each in asked] == ["/health", "/readyz", "/livez"]
    assert {each["path"] for each in asked} <= routes
    assert {each["port"] for each in asked} <= ports


@every_overlay
def test_every_other_probe_asks_a_port_that_its_own_container_declares_and_serves(name: str) -> None:
    for workload in workloads(overlay(name)):
        for one in lasting(pod_of(workload)):
            ports = {key: port["containerPort"] for port in one.get("ports", []) for key in port.values()}
            for kind in {"startupProbe", "readinessProbe", "livenessProbe"} & one.keys():
                way = one[kind].get("tcpSocket") or one[kind].get("httpGet")
                if way and one["name"] != "app":  # which is asked through NGINX
                    assert way["port"] in ports, f"{workload['metadata']['name']}/{one['name']}: {kind}"
    # What each is configured to listen on, and on all addresses: the kubelet asks the pod's.
    pod = sluice_pod(overlay(name))
    listens = {
        "exporter": settings(overlay(name))["SLUICE_METRICS_BIND"],
        "nginx": container(pod, "nginx-config")["args"][-1],
    }
    for container_name, address in listens.items():
        (port,) = container(pod, container_name)["ports"]
        assert address == f"0.0.0.0:{port['containerPort']}"


@every_overlay
def test_probes_have_explicit_times_and_liveness_is_the_laxest(name: str) -> None:
    for workload in workloads(overlay(name)):
        for one in lasting(pod_of(workload)):
            probes = {kind: one[kind] for kind in ("startupProbe", "readinessProbe", "livenessProbe") if kind in one}
            assert {"startupProbe", "livenessProbe"} <= probes.keys(), one["name"]
            for probe in probes.values():
                assert {"timeoutSeconds", "periodSeconds", "failureThreshold"} <= probe.keys(), one["name"]
                assert probe["timeoutSeconds"] >= 3, "the default of one second fails on a busy machine"
            if "readinessProbe" in probes:
                assert budget_seconds(probes["livenessProbe"]) > 2 * budget_seconds(probes["readinessProbe"])
            assert budget_seconds(probes["livenessProbe"]) > ledger()["watchdog_seconds"]


@every_overlay
def test_everything_that_is_written_has_a_volume_of_bounded_size(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found = read_settings(name, monkeypatch)
    pod = sluice_pod(overlay(name))
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    for volume in volumes.values():
        assert "emptyDir" not in volume or "sizeLimit" in volume["emptyDir"], volume["name"]
    places = {mount["mountPath"]: volumes[mount["name"]] for mount in container(pod, "app")["volumeMounts"]}
    assert places[str(found.socket_dir)]["emptyDir"]["medium"] == "Memory"
    # Above its limit the pod is evicted, and the store is allocated at once.
    state = places[str(found.state_dir)]["emptyDir"]
    assert size_bytes(state["sizeLimit"]) >= 1.5 * found.log_bytes_max
    assert places["/dev/shm"]["emptyDir"]["medium"] == "Memory"
    assert size_bytes(container(pod, "app")["resources"]["limits"]["ephemeral-storage"]) >= size_bytes(
        state["sizeLimit"]
    )
    mounts = {mount["mountPath"] for one in containers(pod) for mount in one["volumeMounts"]}
    assert str(found.metrics_path) in mounts


@every_overlay
def test_memory_is_limited_to_what_is_asked_for(name: str) -> None:
    for workload in workloads(overlay(name)):
        for one in containers(pod_of(workload)):
            assert one["resources"]["requests"]["memory"] == one["resources"]["limits"]["memory"], one["name"]


@every_overlay
def test_sockets_are_shared_and_their_paths_fit(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found = read_settings(name, monkeypatch)
    pod = sluice_pod(overlay(name))
    for one in ("nginx", "app", "exporter"):
        assert str(found.socket_dir) in {mount["mountPath"] for mount in container(pod, one)["volumeMounts"]}
    assert len(str(found.socket_dir)) < 80


@every_overlay
def test_without_a_common_log_there_is_one_pod(name: str) -> None:
    manifests = overlay(name)
    replicas = named(manifests, "Deployment", "sluice")["spec"].get("replicas")
    assert (replicas == 1) == ("SLUICE_STREAM_LOG" not in settings(manifests))


@every_overlay
def test_a_rollout_never_takes_a_pod_before_another_serves(name: str) -> None:
    spec = named(overlay(name), "Deployment", "sluice")["spec"]
    assert spec["strategy"]["rollingUpdate"]["maxUnavailable"] == 0
    assert spec["minReadySeconds"] >= 5 * ledger()["drain_spread_seconds"]
    starting = budget_seconds(container(sluice_pod(overlay(name)), "app")["startupProbe"])
    assert spec["progressDeadlineSeconds"] > starting + spec["minReadySeconds"]


@every_overlay
def test_the_environment_of_a_pod_is_one_that_the_app_starts_with(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    known = {
        str(field.validation_alias.choices[0]) if field.validation_alias else f"SLUICE_{key.upper()}"  # type: ignore[union-attr]
        for key, field in Settings.model_fields.items()
    }
    others = {"OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_SERVICE_NAME"}
    assert settings(overlay(name)).keys() <= known | others
    assert read_settings(name, monkeypatch).workers == 2


@every_overlay
def test_the_models_file_of_an_overlay_can_be_served(name: str, tmp_path: Path) -> None:
    (text,) = named(overlay(name), "ConfigMap", "sluice-models")["data"].values()
    path = tmp_path / "models.yaml"
    path.write_text(text)
    assert load_catalog(path).models
