"""kubectl takes what was built, without a cluster: as far as it looks at manifests by itself.

`kubectl apply --dry-run=client` and `create` ask the server first which kinds there are, so they need a cluster:
`make k8s-verify` is for that. `--local` asks nobody. `kubectl set serviceaccount` then reads each manifest into
Kubernetes' own types, and writes those that have pods out again: a field that it does not know is lost on the way. Of
the other kinds it says which type they were read into. Extensions' kinds have their own schemas (test_builds.py).
"""

import copy
import json
import os
import re
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from scripts.kubernetes_golden import FOLDERS
from scripts.kustomize import KUBECTL
from tests.support import kubernetes_schemas
from tests.support.manifests import Manifest, named, of_kind, rendered, workloads

SECONDS_MAX = 60
EVERYTHING = pytest.mark.parametrize("folder", FOLDERS)
# Written out in the shortest way, as 1024Mi is 1Gi.
QUANTITIES = {"requests", "limits", "sizeLimit", "storage"}


def dry_run(manifests: Sequence[Manifest], *words: str) -> "subprocess.CompletedProcess[str]":
    """What kubectl makes of them, with no cluster that it could ask."""
    return subprocess.run(
        [str(KUBECTL), *words, "--local", "--dry-run=client", "--output=json", "--filename=-"],
        input=yaml.dump_all(manifests, Dumper=yaml.CSafeDumper),
        env=os.environ | {"KUBECONFIG": os.devnull},
        capture_output=True,
        text=True,
        timeout=SECONDS_MAX,
    )


def documents(text: str) -> Iterator[dict[str, Any]]:
    """JSON, one after the other."""
    decoder, place = json.JSONDecoder(), 0
    while place < len(text):
        found, place = decoder.raw_decode(text, place)
        yield found
        place += len(text[place:]) - len(text[place:].lstrip())


def lost(ours: Any, theirs: Any, way: str = "") -> Iterator[str]:
    """What is not in theirs as it is in ours; what they added (defaults, `status`) does not count."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        for key, value in ours.items():
            if key not in theirs:
                yield f"{way}.{key}"
            elif key not in QUANTITIES:
                yield from lost(value, theirs[key], f"{way}.{key}")
    elif isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        for number, (own, other) in enumerate(zip(ours, theirs, strict=True)):
            yield from lost(own, other, f"{way}[{number}]")
    elif ours != theirs:
        yield f"{way}: {ours} became {theirs}"


def core(manifests: Sequence[Manifest]) -> list[Manifest]:
    return [one for one in manifests if one["kind"] not in kubernetes_schemas.OF_EXTENSIONS]


def all_lost(manifests: Sequence[Manifest]) -> list[str]:
    """Of workloads, by kubectl's types."""
    found = []
    for workload in workloads(manifests):
        account = workload["spec"]["template"]["spec"]["serviceAccountName"]
        done = dry_run([workload], "set", "serviceaccount", account)
        assert done.returncode == 0, done.stderr
        (theirs,) = documents(done.stdout)
        found += [f"{workload['metadata']['name']}{way}" for way in lost(workload, theirs)]
    return found


@EVERYTHING
def test_kubectl_knows_every_field_of_what_has_pods(folder: str) -> None:
    assert all_lost(rendered(folder)) == []


@EVERYTHING
def test_kubectl_reads_everything_else_into_the_type_that_it_is(folder: str) -> None:
    others = [one for one in core(rendered(folder)) if one not in workloads(rendered(folder))]
    done = dry_run(others, "set", "serviceaccount", "any")
    # It has read them all, and only then finds that they have no pods.
    said = re.findall(r"the object is not a pod or does not have a pod template: \*v\d\w*\.(\w+)", done.stderr)
    assert sorted(said) == sorted(one["kind"] for one in others)
    assert "unable to decode" not in done.stderr


@EVERYTHING
def test_kubectl_can_label_everything_extensions_too(folder: str) -> None:
    done = dry_run(rendered(folder), "label", "kept=yes")
    assert done.returncode == 0, done.stderr
    found = list(documents(done.stdout))
    assert [one["metadata"]["labels"]["kept"] for one in found] == ["yes"] * len(rendered(folder))


def damaged(kind: str) -> tuple[list[Manifest], Any]:
    manifests = copy.deepcopy(list(rendered("overlays/production")))
    return manifests, of_kind(manifests, kind)[0]


def test_a_field_that_kubectl_does_not_know_is_found() -> None:
    manifests, deployment = damaged("Deployment")
    deployment["spec"]["template"]["spec"]["containers"][0]["lifecycle"]["preStop"]["sleeps"] = {"seconds": 15}
    assert all_lost(manifests) == ["sluice.spec.template.spec.containers[0].lifecycle.preStop.sleeps"]


@pytest.mark.parametrize(
    ("kind", "damage"),
    [
        ("Deployment", {"minReadySeconds": "30"}),
        ("PodDisruptionBudget", {"maxUnavailable": [1]}),
        ("NetworkPolicy", {"egress": {}}),
    ],
)
def test_a_value_of_another_type_is_refused(kind: str, damage: dict[str, object]) -> None:
    manifests, manifest = damaged(kind)
    manifest["spec"].update(damage)
    done = dry_run(core(manifests), "set", "serviceaccount", "any")
    assert done.returncode != 0
    assert "unable to decode" in done.stderr


def test_a_kind_of_another_version_is_refused() -> None:
    manifests: list[Any] = copy.deepcopy(list(rendered("overlays/production")))
    budget: Any = named(manifests, "PodDisruptionBudget", "sluice")
    budget["apiVersion"] = "policy/v1beta2"
    assert "policy/v1beta2" in dry_run([budget], "set", "serviceaccount", "any").stderr


def test_without_local_kubectl_asks_a_cluster_first(tmp_path: Path) -> None:
    """The day on which it does not, this file has a better way."""
    path = tmp_path / "built.yaml"
    path.write_text(yaml.dump_all(core(rendered("base"))))
    command = [str(KUBECTL), "apply", "--dry-run=client", "--validate=false", "--server=http://127.0.0.1:1"]
    done = subprocess.run([*command, "-f", path], capture_output=True, text=True, timeout=SECONDS_MAX)
    assert done.returncode != 0
    assert "connection refused" in done.stderr
