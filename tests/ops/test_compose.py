"""The compose stack, without Docker: its files exist, its waits are the ledger's, its containers are closed."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

import app.capacity
import app.timeouts
from app.observability import genai
from app.settings import Settings
from app.timeouts import ledger
from deploy.prometheus.objectives import load as objectives
from tests.ops.test_prometheus_rules import promtool
from tests.support.dockerfile import stages

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
COMPOSE: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
COLLECTOR: dict[str, Any] = yaml.safe_load((DEPLOY / "otel/collector.yaml").read_text())
# Those that are used here, of the compose specification.
KEYS = {
    "build",
    "image",
    "command",
    "entrypoint",
    "environment",
    "env_file",
    "depends_on",
    "networks",
    "network_mode",
    "ports",
    "volumes",
    "tmpfs",
    "user",
    "profiles",
    "restart",
    "read_only",
    "cap_drop",
    "cap_add",
    "security_opt",
    "pids_limit",
    "mem_limit",
    "shm_size",
    "ulimits",
    "logging",
    "healthcheck",
    "stop_signal",
    "stop_grace_period",
}
# ${NAME:-what it is where NAME is not set}.
VARIABLE = re.compile(r"\$\{[A-Z_]+:-([^}]*)\}")
BUILT = {name for name, service in SERVICES.items() if "build" in service}


@pytest.fixture(params=sorted(SERVICES))
def service(request: pytest.FixtureRequest) -> dict[str, Any]:
    return SERVICES[request.param]


def mounts(name: str) -> dict[str, str]:
    """What is mounted into a service by where, with no variable set."""
    found = [VARIABLE.sub(r"\1", mount).removesuffix(":ro") for mount in SERVICES[name].get("volumes", [])]
    return {target: source for source, _, target in (mount.rpartition(":") for mount in found)}


def run_as(name: str, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """A command of ours with what a service has of environment and files, volumes being folders below `folder`."""
    places = {
        target: str((DEPLOY / source).resolve() if source.startswith(".") else folder / source)
        for target, source in mounts(name).items()
    }
    for source in set(COMPOSE["volumes"]) & set(mounts(name).values()):
        (folder / source).mkdir(exist_ok=True)

    def here(text: str) -> str:
        for target, place in places.items():
            text = re.sub(rf"^{re.escape(target)}(?=/|$)", place, text)
        return text

    environment = {key: here(VARIABLE.sub(r"\1", value)) for key, value in SERVICES[name]["environment"].items()}
    return subprocess.run(
        [sys.executable, "-m", *map(here, words)],
        cwd=DEPLOY.parent,
        env={"PATH": os.environ["PATH"]} | environment,
        capture_output=True,
        text=True,
        timeout=120,
    )


def seconds(duration: str) -> float:
    found = re.fullmatch(r"(\d+)s", duration)
    assert found, duration
    return float(found[1])


def test_every_service_is_there_in_its_profile() -> None:
    assert {name: service.get("profiles", []) for name, service in SERVICES.items()} == {
        "state-owner": [],
        "nginx-config": [],
        "exporter": [],
        "nginx": [],
        "sluice": [],
        "redis": ["redis"],
        "prometheus": ["observe"],
        "alertmanager": ["observe"],
        "grafana": ["observe"],
        "otel-collector": ["tracing"],
        "jaeger": ["tracing"],
    }


def test_no_container_may_more_than_it_needs(service: dict[str, Any]) -> None:
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["pids_limit"] <= 256
    assert re.fullmatch(r"\d+[mg]", service["mem_limit"])
    assert service["logging"]["options"]["max-size"]
    assert "privileged" not in service
    assert "cap_add" not in service or service is SERVICES["state-owner"]


def test_nothing_is_open_to_the_network(service: dict[str, Any]) -> None:
    assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))
    assert COMPOSE["networks"]["inside"] == {"internal": True}


def test_images_are_ours_or_have_an_exact_tag() -> None:
    for name, service in SERVICES.items():
        image = service["image"]
        assert (image.endswith(":local")) == (name in BUILT)
        assert name in BUILT or re.fullmatch(r"[\w./-]+:v?\d+\.\d+\.\d+", image), image


def test_every_target_that_is_built_is_a_stage_of_the_dockerfile() -> None:
    stages = set(re.findall(r"^FROM .+ AS (\w+)$", (DEPLOY / "Dockerfile").read_text(), re.MULTILINE))
    for name in BUILT:
        build = SERVICES[name]["build"]
        assert (DEPLOY / build["context"] / build["dockerfile"]).is_file()
        assert build["target"] in stages


def test_what_the_app_reads_of_this_folder_goes_into_the_image() -> None:
    """A build sees nothing but what .dockerignore lets in."""
    let_in = (DEPLOY.parent / ".dockerignore").read_text().splitlines()
    for path in (app.capacity.FILE, app.timeouts.LEDGER):
        assert f"!{path.relative_to(DEPLOY.parent)}" in let_in


@pytest.mark.parametrize("dockerfile", ["deploy/Dockerfile", "loadtests/Dockerfile"])
def test_what_an_image_copies_is_let_into_its_build(dockerfile: str) -> None:
    lines = (DEPLOY.parent / ".dockerignore").read_text().splitlines()
    let_in = {line[1:].partition("/")[0] for line in lines if line.startswith("!")}
    copied = [
        source.partition("/")[0]
        for stage in stages(DEPLOY.parent / dockerfile).values()
        for name, words in stage.instructions
        if name == "COPY" and not words.startswith("--from=")
        for source in words.split()[:-1]
    ]
    assert copied
    assert set(copied) <= let_in


def test_every_key_of_a_service_is_one_of_the_compose_specification(service: dict[str, Any]) -> None:
    """A misspelt one would be refused, or silently mean nothing."""
    assert service.keys() <= KEYS
    for needed in service.get("depends_on", {}).values():
        assert needed["condition"] in ("service_started", "service_healthy", "service_completed_successfully")
    networks = service.get("networks", [])
    assert set(networks) <= COMPOSE["networks"].keys()
    assert not (networks and "network_mode" in service)


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_every_file_that_is_mounted_is_there_and_every_volume_declared(name: str) -> None:
    for source in mounts(name).values():
        if source.startswith("."):
            assert (DEPLOY / source).exists(), source
        else:
            assert source in COMPOSE["volumes"], source
    for mount in SERVICES[name].get("volumes", []):
        assert mount.partition(":")[0] in COMPOSE["volumes"] or mount.endswith(":ro"), mount


def test_the_app_starts_with_what_it_is_given_here(tmp_path: Path) -> None:
    """Settings, models and credentials are read and the app is put together, as Gunicorn does before it forks."""
    checked = run_as("sluice", tmp_path, "gunicorn", "--check-config", "-c", "deploy/gunicorn.conf.py")

    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_nginx_gets_its_configuration_from_what_is_given_here(tmp_path: Path) -> None:
    written = run_as("nginx-config", tmp_path, *SERVICES["nginx-config"]["command"])

    assert written.returncode == 0, written.stderr
    assert (tmp_path / "nginx" / "nginx.conf").is_file()
    upstreams = (tmp_path / "nginx" / "values" / "http-upstream.conf").read_text()
    assert upstreams.count("/run/sluice/worker-") == int(SERVICES["sluice"]["environment"]["WORKERS"])


def test_what_a_service_leaves_behind_is_not_in_memory() -> None:
    """Docker unmounts a volume in memory with its last container: those after one that ends would find it empty."""
    options = {name: (volume or {}).get("driver_opts", {}) for name, volume in COMPOSE["volumes"].items()}
    once = [name for name, service in SERVICES.items() if service["restart"] == "no"]
    assert once == ["state-owner", "nginx-config"]
    for name in once:
        for source in mounts(name).values():
            assert options.get(source, {}).get("type") != "tmpfs", f"{name}: {source}"


def test_every_volume_on_disk_that_our_containers_write_is_given_to_their_user() -> None:
    """Docker makes it root's, and nobody else's containers may be."""
    owner = SERVICES["state-owner"]
    given = {target: source for target, source in mounts("state-owner").items() if target in owner["entrypoint"]}
    on_disk = {name for name, volume in COMPOSE["volumes"].items() if not (volume or {}).get("driver_opts")}
    for name in BUILT:
        for target, source in mounts(name).items():
            assert source not in on_disk or given[target] == source, f"{name}: {source}"
    for first in ("nginx-config", "sluice"):
        assert SERVICES[first]["depends_on"]["state-owner"] == {"condition": "service_completed_successfully"}


def test_stopping_takes_as_long_as_the_ledger_says() -> None:
    waits = ledger()

    assert seconds(SERVICES["sluice"]["stop_grace_period"]) == waits["gunicorn_stop_seconds"] > waits["kill_seconds"]
    assert seconds(SERVICES["nginx"]["stop_grace_period"]) == waits["nginx_stop_seconds"]
    assert seconds(SERVICES["exporter"]["stop_grace_period"]) == waits["exporter_stop_seconds"]
    assert SERVICES["nginx"]["stop_signal"] == "SIGQUIT"


def test_the_app_drains_before_all_others_end() -> None:
    """Compose stops a service before those that it depends on."""
    assert {"nginx", "exporter"} <= SERVICES["sluice"]["depends_on"].keys()


def test_every_setting_is_one() -> None:
    known = {"PORT", "WORKERS"} | {f"SLUICE_{name.upper()}" for name in Settings.model_fields}
    for name in ("sluice", "exporter", "nginx-config"):
        given = {key for key in SERVICES[name]["environment"] if key.startswith(("SLUICE_", "WORKERS", "PORT"))}
        assert given <= known
    assert set(re.findall(r"\$\{([A-Z_]+)", (DEPLOY / "compose.yaml").read_text())) <= {
        *known,
        "OTEL_EXPORTER_OTLP_ENDPOINT",
    }


def test_app_exporter_and_nginx_configuration_share_their_settings() -> None:
    """Else NGINX would look for sockets where no worker listens."""
    shared = SERVICES["exporter"]["environment"]

    assert SERVICES["nginx-config"]["environment"] == shared
    assert shared.items() <= SERVICES["sluice"]["environment"].items()


def test_prometheus_finds_what_it_is_told_to_scrape() -> None:
    config = yaml.safe_load((DEPLOY / "prometheus/prometheus.yaml").read_text())
    addresses = {job["job_name"]: job["static_configs"][0]["targets"] for job in config["scrape_configs"]}
    host, port = addresses["sluice"][0].split(":")
    (alertmanager,) = config["alerting"]["alertmanagers"][0]["static_configs"][0]["targets"]

    assert "inside" in SERVICES[host]["networks"]
    assert SERVICES[host]["environment"]["SLUICE_METRICS_BIND"].endswith(f":{port}")
    assert alertmanager.split(":")[0] in SERVICES
    assert config["rule_files"] == ["/etc/prometheus/rules/*.yaml"]
    assert "./prometheus/rules:/etc/prometheus/rules:ro" in SERVICES["prometheus"]["volumes"]
    result = promtool("check", "config", "--syntax-only", str(DEPLOY / "prometheus/prometheus.yaml"), cwd=DEPLOY)
    assert result.returncode == 0, result.stderr


def test_grafana_finds_its_dashboards_and_its_data() -> None:
    folder = DEPLOY / "grafana/provisioning"
    (provider,) = yaml.safe_load((folder / "dashboards/sluice.yaml").read_text())["providers"]
    sources = yaml.safe_load((folder / "datasources/sluice.yaml").read_text())["datasources"]
    scrape = yaml.safe_load((DEPLOY / "prometheus/prometheus.yaml").read_text())["global"]["scrape_interval"]

    assert f"./grafana/dashboards:{provider['options']['path']}:ro" in SERVICES["grafana"]["volumes"]
    home = SERVICES["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert (DEPLOY / "grafana/dashboards" / home.removeprefix(f"{provider['options']['path']}/")).is_file()
    for source in sources:
        assert re.fullmatch(r"http://(\w+):\d+", source["url"])[1] in SERVICES  # type: ignore[index]
    assert sources[0]["jsonData"]["timeInterval"] == scrape


def test_the_collector_decides_only_when_a_stream_can_be_over() -> None:
    """Tail sampling's wait begins with a trace's first span; the request's own comes with the stream's end."""
    wait = seconds(COLLECTOR["processors"]["tail_sampling"]["decision_wait"])

    assert wait == ledger()["trace_decision_seconds"] > ledger()["stream_seconds_max"] + ledger()["trace_flush_seconds"]


def test_the_collector_keeps_as_many_traces_as_come_in_its_wait() -> None:
    sampling = COLLECTOR["processors"]["tail_sampling"]
    wait, new = seconds(sampling["decision_wait"]), sampling["expected_new_traces_per_sec"]
    container_mib = int(SERVICES["otel-collector"]["mem_limit"].removesuffix("m"))

    assert sampling["num_traces"] >= wait * new * 1.5
    # Six spans of 2 KiB.
    assert sampling["num_traces"] * 6 * 2 / 1024 < COLLECTOR["processors"]["memory_limiter"]["limit_mib"]
    assert COLLECTOR["processors"]["memory_limiter"]["limit_mib"] < container_mib


def test_the_collector_bounds_its_memory_first_and_batches_last() -> None:
    (pipeline,) = COLLECTOR["service"]["pipelines"].values()

    assert pipeline["processors"] == ["memory_limiter", "tail_sampling", "batch"]
    for kind in ("receivers", "processors", "exporters"):
        assert set(pipeline[kind]) == COLLECTOR[kind].keys()


def test_the_collector_keeps_every_failure_and_every_late_first_token() -> None:
    policies = {policy["name"]: policy for policy in COLLECTOR["processors"]["tail_sampling"]["policies"]}

    (condition,) = policies["slow-first-token"]["ottl_condition"]["span"]
    attribute, limit = re.fullmatch(r'attributes\["(.+)"\] > ([\d.]+)', condition).groups()  # type: ignore[union-attr]
    first_token = next(each for each in objectives().objectives if each.name == "first_token")

    assert f'"{attribute}"' in Path(genai.__file__).read_text()
    assert f'le="{limit}"' in first_token.errors
    assert policies["errors"]["status_code"] == {"status_codes": ["ERROR"]}
    assert 0 < policies["one-in-twenty"]["probabilistic"]["sampling_percentage"] <= 5
