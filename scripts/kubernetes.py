"""Parts of the manifests that follow from deploy/ and nginx/, as files of their own in k8s/, so that no number is in two places."""

from pathlib import Path

import yaml

from app.settings import Settings
from app.timeouts import ledger
from scripts.regions import HOME

MARK = "# Written by `make generate`{source}; do not edit.\n"
NGINX = HOME / "nginx"
# What LMDB takes beside the streams: limits, locks, and room for what settings may add.
STATE_BYTES_BESIDES = 512 * 1024 * 1024
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
    seconds = {name: f"{value:g}" for name, value in ledger().items()}
    return MARK.format(source=" from deploy/timeouts.yaml") + f"""\
# A pod that is deleted, in seconds from then:
#   0    its address is withdrawn; that takes up to {seconds["endpoints_seconds"]}, in which it serves as if nothing were
#   {seconds["nginx_quit_seconds"]:<4} NGINX stops accepting, closes idle connections and goes on with its streams
#   {seconds["pre_stop_seconds"]:<4} the app gets TERM: readers are sent to other pods, generations finish or are handed over
#   {seconds["pod_grace_seconds"]:<4} what is left is killed
apiVersion: apps/v1
kind: Deployment
metadata:
  name: sluice
spec:
  template:
    spec:
      # pre_stop_seconds ({seconds["pre_stop_seconds"]}) + kill_seconds ({seconds["kill_seconds"]}, all bounded steps of the \
drain) + 15 for processes to end.
      # The pause counts: the grace begins with the deletion. At most {seconds["node_grace_seconds"]}, or autoscalers cut it.
      terminationGracePeriodSeconds: {seconds["pod_grace_seconds"]}
      initContainers:
        - name: nginx
          lifecycle:
            preStop:
              # Run beside the app's: sidecars get their signal only when the app is gone.
              exec:
                command:
                  - /bin/sh
                  - -c
                  - sleep {seconds["nginx_quit_seconds"]}; exec nginx -p /run/nginx -c /run/nginx/nginx.conf -e stderr -s quit
      containers:
        - name: app
          lifecycle:
            preStop:
              sleep:
                seconds: {seconds["pre_stop_seconds"]}
"""


def size() -> str:
    """What a pod takes: a patch of the Deployment."""
    log_bytes = Settings.model_fields["log_bytes_max"].default
    state = (log_bytes + STATE_BYTES_BESIDES) // MEBIBYTE
    return MARK.format(source=" from the settings") + f"""\
apiVersion: apps/v1
kind: Deployment
metadata:
  name: sluice
spec:
  template:
    spec:
      containers:
        - name: app
          resources:
            # A worker takes some 120 MiB, and a stream 60 KiB: two workers with 4,000 streams, and as much again for bodies
            # that are being read. The stream log is mapped from a file, which the kernel drops before it kills.
            # The disk is that of the volumes `state` and `tmp`, and of what is logged between two rotations.
            requests: {{cpu: "1", memory: 1Gi, ephemeral-storage: {state + 256}Mi}}
            limits: {{memory: 1Gi, ephemeral-storage: {state + 256}Mi}}
      volumes:
        # SLUICE_LOG_BYTES_MAX ({log_bytes // MEBIBYTE} MiB, allocated at once), and as much for limits and other state.
        # Above it the pod is evicted.
        - name: state
          emptyDir:
            sizeLimit: {state}Mi
"""


def _nginx_files() -> list[Path]:
    found = [path.relative_to(NGINX) for path in NGINX.rglob("*") if path.is_file()]
    return sorted(path for path in found if path.suffix in (".conf", ".template"))


def _key(path: Path) -> str:
    return ".".join(path.parts)


def nginx_config_map() -> str:
    """The sources of NGINX's configuration as a ConfigMap; a key holds no slash, so a folder's name comes before a dot."""
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
