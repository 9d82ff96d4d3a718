"""What `kubectl kustomize` makes of k8s/, as data."""

import functools
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from scripts.kustomize import HASH, build
from tests.support.launched import HOME

KUBERNETES = HOME / "k8s"
OVERLAYS = ("dev", "staging", "production")
# Of ours, those that are in no namespace.
CLUSTER_SCOPED = {"Namespace", "PriorityClass"}

Manifest = Mapping[str, Any]


@functools.cache
def rendered(name: str) -> tuple[Manifest, ...]:
    """A kustomization below k8s/, by its path there."""
    return tuple(yaml.safe_load_all(build(KUBERNETES / name)))


def overlay(name: str) -> tuple[Manifest, ...]:
    return rendered(f"overlays/{name}")


def combination(folder: Path, components: Sequence[str], namespace: str = "sluice") -> tuple[Manifest, ...]:
    """The base with these components, and what their READMEs ask of an overlay, in a folder that is written anew."""
    folder.mkdir(parents=True, exist_ok=True)
    way = Path(os.path.relpath(KUBERNETES, folder.resolve()))
    kustomization = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "namespace": namespace,
        "resources": [str(way / "base")],
        "components": [str(way / "components" / name) for name in components],
    }
    if "autoscaling-keda" in components:
        kustomization["transformers"] = [str(way / "components/autoscaling-keda/namespace")]
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
    return tuple(yaml.safe_load_all(build(folder)))


def of_kind(manifests: Sequence[Manifest], *kinds: str) -> list[Manifest]:
    return [manifest for manifest in manifests if manifest["kind"] in kinds]


def named(manifests: Sequence[Manifest], kind: str, name: str) -> Manifest:
    """The only one of that kind and name, whatever suffix kustomize gave it."""
    (found,) = [one for one in of_kind(manifests, kind) if HASH.sub("", one["metadata"]["name"]) == name]
    return found


def workloads(manifests: Sequence[Manifest]) -> list[Manifest]:
    """Those with pods."""
    return of_kind(manifests, "Deployment", "StatefulSet", "DaemonSet", "Job")


def pod_of(workload: Manifest) -> Manifest:
    found: Manifest = workload["spec"]["template"]["spec"]
    return found


def containers(pod: Manifest) -> Iterator[Manifest]:
    """All, the initial ones first, as they start."""
    yield from pod.get("initContainers", [])
    yield from pod["containers"]


def lasting(pod: Manifest) -> Iterator[Manifest]:
    """Those that run as long as the pod: sidecars, then the others."""
    yield from (one for one in pod.get("initContainers", []) if one.get("restartPolicy") == "Always")
    yield from pod["containers"]


def sluice_pod(manifests: Sequence[Manifest]) -> Manifest:
    return pod_of(named(manifests, "Deployment", "sluice"))


def container(pod: Manifest, name: str) -> Manifest:
    (found,) = [one for one in containers(pod) if one["name"] == name]
    return found


def settings(manifests: Sequence[Manifest]) -> dict[str, str]:
    """The environment that all containers of the pod share."""
    return dict(named(manifests, "ConfigMap", "sluice-settings")["data"])
