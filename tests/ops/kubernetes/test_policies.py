"""The policies themselves: each finds what it is for. A policy that finds nothing anywhere proves nothing."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support import container_policies, reference_policies
from tests.support.manifests import KUBERNETES, combination, container, named, overlay, pod_of
from tests.support.pod_security import violations

Everything = list[dict[str, Any]]
Damage = Callable[[Everything], object]


def one(manifests: Everything, kind: str) -> Any:
    return next(manifest for manifest in manifests if manifest["kind"] == kind)


def pod(manifests: Everything) -> Any:
    return pod_of(one(manifests, "Deployment"))


def app(manifests: Everything) -> Any:
    return pod(manifests)["containers"][0]


def set_in(found: Any, **values: Any) -> None:
    found.update(values)


def unexcused(manifests: Everything) -> None:
    one(manifests, "Deployment")["metadata"]["annotations"].clear()


def redis(manifests: Everything) -> Any:
    return pod_of(named(manifests, "StatefulSet", "sluice-redis"))


def unpaused(pod: Any, name: str) -> None:
    found: Any = container(pod, name)
    found.pop("lifecycle")


def removed(manifests: Everything, kind: str, name: str) -> None:
    found: Any = named(manifests, kind, name)
    manifests.remove(found)


def ingress(**backend: Any) -> dict[str, Any]:
    """The component's, which leads to somewhere else."""
    found: dict[str, Any] = yaml.safe_load((KUBERNETES / "components/ingress-legacy/ingress.yaml").read_text())
    found["spec"]["rules"][0]["http"]["paths"][0]["backend"]["service"] = backend
    return found


def with_volume(manifests: Everything, path: str) -> None:
    pod(manifests)["volumes"].append({"name": "host", "hostPath": {"path": path}})


DAMAGES: dict[str, Damage] = {
    "drop-net-raw-capability": lambda found: app(found)["securityContext"].pop("capabilities"),
    "duplicate-env-var": lambda found: set_in(
        app(found), env=[{"name": "A", "value": "1"}, {"name": "A", "value": "2"}]
    ),
    "env-var-secret": lambda found: set_in(app(found), env=[{"name": "API_TOKEN", "value": "x"}]),
    "latest-tag": lambda found: set_in(app(found), image="sluice:latest"),
    "liveness-port": unexcused,
    "readiness-port": unexcused,
    "startup-port": unexcused,
    "no-liveness-probe": lambda found: app(found).pop("livenessProbe"),
    "no-readiness-probe": lambda found: app(found).pop("readinessProbe"),
    "no-read-only-root-fs": lambda found: set_in(app(found)["securityContext"], readOnlyRootFilesystem=False),
    "privilege-escalation-container": lambda found: app(found)["securityContext"].pop("allowPrivilegeEscalation"),
    "privileged-container": lambda found: set_in(app(found)["securityContext"], privileged=True),
    "privileged-ports": lambda found: set_in(app(found), ports=[{"containerPort": 80}]),
    "read-secret-from-env-var": lambda found: set_in(
        app(found), env=[{"name": "A", "valueFrom": {"secretKeyRef": {"name": "a", "key": "b"}}}]
    ),
    "run-as-non-root": lambda found: pod(found).pop("securityContext"),
    "ssh-port": lambda found: set_in(app(found), ports=[{"containerPort": 22}]),
    "unset-cpu-requirements": unexcused,
    "unset-memory-requirements": lambda found: app(found)["resources"].pop("limits"),
    "default-service-account": lambda found: pod(found).pop("serviceAccountName"),
    "deprecated-service-account-field": lambda found: set_in(pod(found), serviceAccount="sluice"),
    "docker-sock": lambda found: with_volume(found, "/var/run/docker.sock"),
    "host-ipc": lambda found: set_in(pod(found), hostIPC=True),
    "host-network": lambda found: set_in(pod(found), hostNetwork=True),
    "host-pid": lambda found: set_in(pod(found), hostPID=True),
    "no-anti-affinity": lambda found: pod(found).pop("affinity"),
    "no-pre-stop": lambda found: app(found).pop("lifecycle"),
    "no-rolling-update-strategy": lambda found: set_in(one(found, "Deployment")["spec"], strategy={"type": "Recreate"}),
    "restart-policy": lambda found: set_in(pod(found), restartPolicy="Never"),
    "sensitive-host-mounts": lambda found: with_volume(found, "/etc"),
    "unsafe-sysctls": lambda found: set_in(
        pod(found)["securityContext"], sysctls=[{"name": "net.core.somaxconn", "value": "1"}]
    ),
    "no-extensions-v1beta": lambda found: set_in(one(found, "Deployment"), apiVersion="extensions/v1beta1"),
    "job-ttl-seconds-after-finished": lambda found: set_in(one(found, "Deployment"), kind="Job"),
    "mismatching-selector": lambda found: one(found, "Deployment")["spec"]["template"]["metadata"]["labels"].clear(),
    "dangling-service": lambda found: set_in(one(found, "Service")["spec"], selector={"app": "other"}),
    "invalid-target-ports": lambda found: set_in(one(found, "Service")["spec"]["ports"][0], targetPort="other"),
    "exposed-services": lambda found: set_in(one(found, "Service")["spec"], type="LoadBalancer"),
    "dangling-horizontalpodautoscaler": lambda found: set_in(
        one(found, "HorizontalPodAutoscaler")["spec"]["scaleTargetRef"], name="other"
    ),
    "hpa-minimum-three-replicas": lambda found: set_in(one(found, "HorizontalPodAutoscaler")["spec"], minReplicas=1),
    "autoscaler-of-other-namespace": lambda found: found.append(
        {
            "kind": "ScaledObject",
            "metadata": {"name": "sluice", "namespace": "sluice"},
            "spec": {"triggers": [{"metadata": {"query": 'sum(sluice_active_streams{namespace="others"})'}}]},
        }
    ),
    "dangling-networkpolicy": lambda found: set_in(
        one(found, "NetworkPolicy")["spec"], podSelector={"matchLabels": {"app": "other"}}
    ),
    "dangling-networkpolicypeer-podselector": lambda found: set_in(
        one(found, "NetworkPolicy")["spec"], ingress=[{"from": [{"podSelector": {"matchLabels": {"app": "other"}}}]}]
    ),
    "networkpolicy-port-of-sidecar": lambda found: set_in(
        next(each for each in found if each["kind"] == "NetworkPolicy" and each["metadata"]["name"] == "sluice")[
            "spec"
        ],
        ingress=[{"from": [{"podSelector": {}}], "ports": [{"port": "http"}]}],
    ),
    "non-isolated-pod": lambda found: found.remove(
        next(each for each in found if each["kind"] == "NetworkPolicy" and each["metadata"]["name"] == "sluice")
    ),
    "dangling-servicemonitor": lambda found: set_in(
        one(found, "PodMonitor")["spec"]["podMetricsEndpoints"][0], port="other"
    ),
    "dangling-ingress": lambda found: set_in(one(found, "HTTPRoute")["spec"]["rules"][0]["backendRefs"][0], port=81),
    "pdb-max-unavailable": lambda found: set_in(one(found, "PodDisruptionBudget")["spec"], maxUnavailable=0),
    "pdb-min-available": lambda found: set_in(one(found, "PodDisruptionBudget")["spec"], minAvailable="100%"),
    "pdb-unhealthy-pod-eviction-policy": lambda found: one(found, "PodDisruptionBudget")["spec"].pop(
        "unhealthyPodEvictionPolicy"
    ),
    "pdb": lambda found: found.remove(one(found, "PodDisruptionBudget")),
    "priority-class-name": lambda found: found.remove(one(found, "PriorityClass")),
    "non-existent-service-account": lambda found: found.remove(one(found, "ServiceAccount")),
    "token-without-rights": lambda found: pod(found).pop("automountServiceAccountToken"),
    "use-namespace": lambda found: one(found, "Service")["metadata"].pop("namespace"),
    "wildcard-in-rules": lambda found: found.append(
        {
            "kind": "Role",
            "metadata": {"name": "all", "namespace": "sluice"},
            "rules": [{"apiGroups": [""], "resources": ["*"], "verbs": ["get"]}],
        }
    ),
}
# The other ways in which some of them are broken.
MORE_DAMAGES: list[tuple[str, Damage]] = [
    ("dangling-ingress", lambda found: found.append(ingress(name="other", port={"name": "http"}))),
    ("dangling-ingress", lambda found: found.append(ingress(name="sluice", port={"name": "other"}))),
    ("dangling-ingress", lambda found: found.append(ingress(name="sluice", port={"number": 81}))),
    ("dangling-ingress", lambda found: removed(found, "Service", "sluice")),
    ("no-pre-stop", lambda found: unpaused(redis(found), "redis")),
    ("no-pre-stop", lambda found: unpaused(redis(found), "sentinel")),
    ("no-pre-stop", lambda found: unpaused(pod(found), "nginx")),
    ("pdb", lambda found: found.append(one(found, "PodDisruptionBudget"))),
    ("pdb-max-unavailable", lambda found: set_in(one(found, "PodDisruptionBudget")["spec"], maxUnavailable="0%")),
    # As many as the autoscaler leaves, and as the StatefulSet has.
    ("pdb-min-available", lambda found: set_in(named(found, "PodDisruptionBudget", "sluice")["spec"], minAvailable=3)),
    (
        "pdb-min-available",
        lambda found: set_in(named(found, "PodDisruptionBudget", "sluice")["spec"], minAvailable="67%"),
    ),
    (
        "pdb-min-available",
        lambda found: set_in(named(found, "PodDisruptionBudget", "sluice-redis")["spec"], minAvailable=3),
    ),
    (
        "pdb-unhealthy-pod-eviction-policy",
        lambda found: set_in(one(found, "PodDisruptionBudget")["spec"], unhealthyPodEvictionPolicy="IfHealthyBudget"),
    ),
    ("token-without-rights", lambda found: set_in(redis(found), automountServiceAccountToken=True)),
]
POLICIES = [*container_policies.OF_CONTAINERS, *container_policies.OF_PODS, *reference_policies.REFERENCES]


def findings(policy: str, manifests: Everything) -> list[str]:
    if policy in reference_policies.REFERENCES:
        return list(reference_policies.REFERENCES[policy](manifests))
    return container_policies.findings(policy, manifests)


def test_every_policy_is_shown_what_it_is_for() -> None:
    assert DAMAGES.keys() == set(POLICIES)


@pytest.mark.parametrize(("policy", "damage"), [*DAMAGES.items(), *MORE_DAMAGES])
def test_a_policy_finds_what_it_is_for(policy: str, damage: Damage) -> None:
    manifests: Everything = copy.deepcopy(list(overlay("production")))  # type: ignore[arg-type]
    assert findings(policy, manifests) == []
    damage(manifests)
    assert findings(policy, manifests) != []


def test_a_budget_that_leaves_one_pod_to_be_moved_is_none_of_these() -> None:
    manifests: Everything = copy.deepcopy(list(overlay("production")))  # type: ignore[arg-type]
    for share in (2, "66%"):
        set_in(named(manifests, "PodDisruptionBudget", "sluice")["spec"], minAvailable=share)
        assert findings("pdb-min-available", manifests) == []


def test_an_ingress_that_leads_to_the_service_is_not_dangling() -> None:
    manifests: Everything = copy.deepcopy(list(overlay("production")))  # type: ignore[arg-type]
    for port in ({"name": "http"}, {"number": 80}):
        manifests.append(ingress(name="sluice", port=port))
    assert findings("dangling-ingress", manifests) == []


def test_only_the_redis_that_is_alone_is_excused_from_handing_over(tmp_path: Path) -> None:
    """By its name: the three are called the same."""
    for log, expected in (("redis", 0), ("redis-sentinel", 2)):
        manifests: Everything = copy.deepcopy(list(combination(tmp_path / log, (log,))))  # type: ignore[arg-type]
        for each in redis(manifests)["containers"]:
            each.pop("lifecycle", None)
        assert len(findings("no-pre-stop", manifests)) == expected


@pytest.mark.parametrize(
    ("damage", "violation"),
    [
        (lambda pod: pod.update(hostNetwork=True), "hostNetwork"),
        (lambda pod: pod["securityContext"].pop("seccompProfile"), "seccompProfile"),
        (lambda pod: pod["securityContext"].pop("runAsNonRoot"), "runAsNonRoot"),
        (lambda pod: pod["securityContext"].update(runAsUser=0), "runAsUser 0"),
        (lambda pod: pod["volumes"].append({"name": "disk", "hostPath": {"path": "/data"}}), "volume disk"),
        (lambda pod: pod["initContainers"][0]["securityContext"].pop("capabilities"), "keeps capabilities"),
        (lambda pod: pod["containers"][0]["securityContext"].pop("allowPrivilegeEscalation"), "allowPrivilege"),
        (lambda pod: pod["containers"][0].update(ports=[{"containerPort": 1, "hostPort": 1}]), "hostPort"),
    ],
)
def test_the_restricted_profile_refuses_what_it_should(damage: Callable[[Any], object], violation: str) -> None:
    damaged = copy.deepcopy(pod(list(overlay("production"))))  # type: ignore[arg-type]
    assert violations(damaged) == []
    damage(damaged)
    assert any(violation in found for found in violations(damaged))
