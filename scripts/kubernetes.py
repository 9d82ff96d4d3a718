"""Parts of the manifests that follow from deploy/ and nginx/, as files of their own: no number is in two places."""

import json
import math
import string
from collections.abc import Mapping
from pathlib import Path

import yaml

from app.settings import Settings
from app.timeouts import ledger
from scripts.regions import HOME

MARK = "# Written by `make generate`{source}; do not edit.\n"
NGINX = HOME / "nginx"
TEMPLATES = HOME / "k8s/templates"
# Measured: a worker with everything imported and nothing to do.
WORKER_MIB = 128
# What the state folder holds beside the streams: limits, keys, and room.
STATE_MIB_BESIDES = 512
# Of the volume `tmp`, and what is logged between two rotations.
OTHER_DISK_MIB = 256
MEBIBYTE = 1024 * 1024


def files() -> dict[Path, str]:
    """What each should hold."""
    return {
        HOME / "k8s/base/waits.yaml": waits(),
        HOME / "k8s/base/size.yaml": size(),
        HOME / "k8s/base/nginx.yaml": nginx_volume(),
        NGINX / "kustomization.yaml": nginx_config_map(),
    }


def waits() -> str:
    """How a pod stops: a patch of the Deployment."""
    return _filled("waits.yaml", "from deploy/timeouts.yaml", {name: f"{wait:g}" for name, wait in ledger().items()})


def size() -> str:
    """What a pod takes: a patch of the Deployment."""
    capacity = json.loads((HOME / "deploy/capacity.json").read_text())
    log_mib = Settings.model_fields["log_bytes_max"].default // MEBIBYTE
    # In thousandths of a core, at as many streams as a pod carries.
    tokens_per_second = capacity["streams_per_pod"] * capacity["tokens_per_second"]
    app_millicores = math.ceil(tokens_per_second * capacity["cpu_us_per_token"] / 1e3 / 100) * 100
    nginx_millicores = math.ceil(tokens_per_second * capacity["nginx_cpu_us_per_token"] / 1e3 / 50) * 50
    streams_mib = math.ceil(capacity["streams_per_pod"] * capacity["kib_per_stream"] / 1024)
    values = capacity | {
        "app_millicores": app_millicores,
        "nginx_millicores": nginx_millicores,
        "streams_mib": streams_mib,
        "workers_mib": capacity["workers_per_pod"] * WORKER_MIB,
        # As much again for bodies that are being read and for what is about to be committed; in steps of 128 MiB.
        "memory_mib": math.ceil(2 * (streams_mib + capacity["workers_per_pod"] * WORKER_MIB) / 128) * 128,
        "log_mib": log_mib,
        "state_mib": log_mib + STATE_MIB_BESIDES,
        "disk_mib": log_mib + STATE_MIB_BESIDES + OTHER_DISK_MIB,
    }
    return _filled("size.yaml", "from deploy/capacity.json and the settings", {k: str(v) for k, v in values.items()})


def _filled(name: str, source: str, values: Mapping[str, str]) -> str:
    template = (TEMPLATES / name).read_text()
    return MARK.format(source=" " + source) + string.Template(template).substitute(values)


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
