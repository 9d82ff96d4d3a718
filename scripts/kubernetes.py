"""Parts of the manifests that follow from deploy/ and nginx/, as files of their own: no number is in two places."""

import json
import math
import string
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from app.settings import Settings
from app.timeouts import ledger
from scripts import monitoring
from scripts.regions import HOME

MARK = "# Written by `make generate`{source}; do not edit.\n"
NGINX = HOME / "nginx"
RULES = HOME / "deploy/prometheus/rules"
DASHBOARDS = HOME / "deploy/grafana/dashboards"
KUBERNETES = HOME / "k8s"
# Each beside its place below k8s/, with `$name` for a value.
TEMPLATES = KUBERNETES / "templates"
# Reckoned for each worker. Idle, one had 51 MiB of its own, LMDB or Redis, and Gunicorn's master 40 MiB beside
# it; after 200 streams it had 78 MiB (LMDB, whose map counts) and 65 (Redis). With `WORKERS=1 make serve`, and then
# python -c "import psutil, sys; print(psutil.Process(int(sys.argv[1])).memory_full_info().uss / 2**20)" PID
# The rest is for models by SDKs and graphs, which are imported besides.
WORKER_MIB = 128
# NGINX's master and two workers: 12 MiB, 8 of their own; and as much again while a reload has two generations.
NGINX_MIB = 24
# Of an edge; each runs on one core at a time.
EDGE_PROCESSES = 2
# What the state folder holds beside the streams: limits, keys, and room.
STATE_MIB_BESIDES = 512
# Of the volume `tmp`, and what is logged between two rotations.
OTHER_DISK_MIB = 256
MEBIBYTE = 1024 * 1024


def files() -> dict[Path, str]:
    """What each should hold."""
    filled = values()
    patches = {
        KUBERNETES / path.relative_to(TEMPLATES): MARK.format(source=" from k8s/templates, with the figures of deploy/")
        + string.Template(path.read_text()).substitute(filled)
        for path in sorted(TEMPLATES.rglob("*.*"))
    }
    return patches | {
        KUBERNETES / "base/nginx.yaml": nginx_volume(),
        NGINX / "kustomization.yaml": nginx_config_map(),
        KUBERNETES / "components/monitoring/prometheusrule.yaml": rules(),
        DASHBOARDS / "kustomization.yaml": dashboards(),
    }


def values() -> dict[str, str]:
    """What the templates may name: the ledger's waits, the capacity, and what follows from them."""
    capacity = json.loads((HOME / "deploy/capacity.json").read_text())
    waits = {name: f"{wait:g}" for name, wait in ledger().items()}
    found = waits | capacity | _size(capacity) | _size_of_nginx(capacity) | _queries()
    return {name: str(value) for name, value in found.items()}


def _size(capacity: Mapping[str, Any]) -> dict[str, object]:
    """What a pod takes with as many streams as it carries."""
    tokens_per_second = capacity["streams_per_pod"] * capacity["tokens_per_second"]
    streams_mib = math.ceil(capacity["streams_per_pod"] * capacity["kib_per_stream"] / 1024)
    workers_mib = capacity["workers_per_pod"] * WORKER_MIB
    log_mib = Settings.model_fields["log_bytes_max"].default // MEBIBYTE
    return {
        "app_millicores": _up(tokens_per_second * capacity["cpu_us_per_token"] / 1000, 100),
        "streams_mib": streams_mib,
        "workers_mib": workers_mib,
        # As much again for garbage (app/garbage.py), bodies that are being read and what is about to be committed.
        "memory_mib": _up(2 * (streams_mib + workers_mib), 128),
        "log_mib": log_mib,
        "state_mib": log_mib + STATE_MIB_BESIDES,
        "disk_mib": log_mib + STATE_MIB_BESIDES + OTHER_DISK_MIB,
    }


def _size_of_nginx(capacity: Mapping[str, Any]) -> dict[str, object]:
    """What it takes in a pod, and as an edge before pods."""
    cores_per_stream = capacity["tokens_per_second"] * capacity["nginx_cpu_us_per_token"] / 1e6
    edge_cores = EDGE_PROCESSES * capacity["utilisation_target"]
    edge_streams = math.floor(edge_cores / cores_per_stream)

    def memory_mib(streams: int) -> int:
        return _up(2 * (streams * capacity["nginx_kib_per_stream"] / 1024 + NGINX_MIB), 64)

    return {
        "nginx_mib": NGINX_MIB,
        "nginx_millicores": _up(capacity["streams_per_pod"] * cores_per_stream * 1000, 50),
        "nginx_memory_mib": memory_mib(capacity["nginx_streams_max"]),
        "edge_processes": EDGE_PROCESSES,
        "edge_streams": edge_streams,
        "edge_pods": max(1, edge_streams // capacity["hpa_target_streams_per_pod"]),
        "edge_millicores": _up(edge_cores * 1000, 50),
        "edge_memory_mib": memory_mib(edge_streams),
    }


def _up(value: float, step: int) -> int:
    return math.ceil(value / step) * step


def _queries() -> dict[str, str]:
    """What autoscalers ask, by what fills in the labels: the adapter of Prometheus, and kustomize (KEDA)."""
    # One that nobody has: if kustomize was not told to fill it in, KEDA finds no series, and scales by nobody else's.
    in_namespace = {"adapter": "<<.LabelMatchers>>", "keda": 'namespace="NOT-FILLED-IN"'}
    found = {}
    for asker, matcher in in_namespace.items():
        streams = f'sum(sluice_active_streams{{{matcher},draining="false"}})'
        rate = f"sum by (le) (rate(sluice_admission_wait_seconds_bucket{{{matcher}}}[1m]))"
        # Nobody who waited is no wait: 0, and not the NaN of an empty histogram.
        found[f"streams_query_{asker}"] = f"'{streams}'"
        found[f"wait_query_{asker}"] = f"'(histogram_quantile(0.9, {rate}) >= 0) or on() vector(0)'"
    return found


def _nginx_files() -> list[Path]:
    found = [path.relative_to(NGINX) for path in NGINX.rglob("*") if path.is_file()]
    return sorted(path for path in found if path.suffix in (".conf", ".template"))


def _key(path: Path) -> str:
    return ".".join(path.parts)


def nginx_config_map() -> str:
    """The sources of NGINX's configuration as a ConfigMap, whose keys have no slash: a folder's name and a dot."""
    found = [f"{_key(path)}={path}" for path in _nginx_files()]
    document = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "configMapGenerator": [{"name": "sluice-nginx", "files": found}],
    }
    return MARK.format(source="") + yaml.safe_dump(document, sort_keys=False)


def nginx_volume() -> str:
    """The volume that has them in their folders again: a patch of the Deployment."""
    items = [{"key": _key(path), "path": str(path)} for path in _nginx_files()]
    volume = {"name": "nginx-source", "configMap": {"name": "sluice-nginx", "items": items}}
    patch = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "sluice"},
        "spec": {"template": {"spec": {"volumes": [volume]}}},
    }
    return MARK.format(source=" from nginx/") + yaml.safe_dump(patch, sort_keys=False)


def rules() -> str:
    """The rules and alerts of deploy/prometheus as the object that Prometheus Operator reads."""
    groups = [
        group
        for path, text in sorted(monitoring.files().items())
        if path.parent == RULES
        for group in yaml.safe_load(text)["groups"]
    ]
    document = {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": "sluice", "labels": {"app.kubernetes.io/name": "sluice"}},
        "spec": {"groups": groups},
    }
    return MARK.format(source=" from deploy/prometheus") + yaml.safe_dump(document, sort_keys=False, width=120)


def dashboards() -> str:
    """Each dashboard as a ConfigMap, which Grafana's sidecar finds by its label."""
    names = sorted(path.stem for path in monitoring.files() if path.parent == DASHBOARDS)
    document = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        # The sidecar reads whatever has the label: a name that changes would leave the old one beside the new.
        "generatorOptions": {"disableNameSuffixHash": True, "labels": {"grafana_dashboard": "1"}},
        "configMapGenerator": [{"name": f"sluice-dashboard-{name}", "files": [f"{name}.json"]} for name in names],
    }
    return MARK.format(source="") + yaml.safe_dump(document, sort_keys=False)
