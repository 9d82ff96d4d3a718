"""kube-linter's checks of what manifests say of each other, by its names: what leads nowhere."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from tests.support.manifests import CLUSTER_SCOPED, Manifest, containers, of_kind, pod_of, workloads
from tests.support.promql import selectors

Manifests = Sequence[Manifest]
Findings = Iterator[str]
# Of every cluster.
PRIORITY_CLASSES = {"system-cluster-critical", "system-node-critical"}


def name_of(manifest: Manifest) -> str:
    return f"{manifest['kind']} {manifest['metadata']['name']}"


def selects(selector: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    """Whether a label selector of ours, which has matchLabels alone, takes these."""
    assert selector.keys() <= {"matchLabels"}, selector
    wanted: Mapping[str, str] = selector.get("matchLabels", {})
    return wanted.items() <= labels.items()


def selected(manifests: Manifests, selector: Mapping[str, Any]) -> list[Manifest]:
    return [one for one in workloads(manifests) if selects(selector, one["spec"]["template"]["metadata"]["labels"])]


def _ports(workload: Manifest) -> set[object]:
    found: set[object] = set()
    for one in containers(pod_of(workload)):
        for port in one.get("ports", []):
            found |= {port["containerPort"], port.get("name")}
    return found


def _service_selector(service: Manifest) -> dict[str, Any]:
    return {"matchLabels": service["spec"].get("selector", {})}


def dangling_service(manifests: Manifests) -> Findings:
    for service in of_kind(manifests, "Service"):
        if not selected(manifests, _service_selector(service)):
            yield f"{name_of(service)} has no pods"


def invalid_target_ports(manifests: Manifests) -> Findings:
    for service in of_kind(manifests, "Service"):
        for workload in selected(manifests, _service_selector(service)):
            for port in service["spec"]["ports"]:
                if port.get("targetPort", port["port"]) not in _ports(workload):
                    yield f"{name_of(service)} leads to {port.get('targetPort')}, which {name_of(workload)} has not"


def exposed_services(manifests: Manifests) -> Findings:
    for service in of_kind(manifests, "Service"):
        if service["spec"].get("type", "ClusterIP") != "ClusterIP":
            yield f"{name_of(service)} can be reached from outside"


def _dangling_target(manifest: Manifest, target: Mapping[str, str], manifests: Manifests) -> Findings:
    kind = target.get("kind", "Deployment")
    if not any(one["metadata"]["name"] == target["name"] for one in of_kind(manifests, kind)):
        yield f"{name_of(manifest)} is for {kind} {target['name']}, which is not there"


def dangling_autoscaler(manifests: Manifests) -> Findings:
    for scaler in of_kind(manifests, "HorizontalPodAutoscaler", "ScaledObject"):
        yield from _dangling_target(scaler, scaler["spec"]["scaleTargetRef"], manifests)


def autoscaler_namespaces(manifests: Manifests) -> Findings:
    for scaler in of_kind(manifests, "ScaledObject"):
        own = {scaler["metadata"]["namespace"]}
        for trigger in scaler["spec"]["triggers"]:
            for series, matchers in selectors(trigger["metadata"]["query"]):
                asked = {value for label, value in matchers if label == "namespace"}
                if asked != own:
                    yield f"{name_of(scaler)} asks for {series} of {asked}, and is in {own}"


def autoscaler_replicas(manifests: Manifests) -> Findings:
    for scaler in of_kind(manifests, "HorizontalPodAutoscaler", "ScaledObject"):
        spec = scaler["spec"]
        if spec.get("minReplicas", spec.get("minReplicaCount", 1)) < 3:
            yield f"{name_of(scaler)} may leave fewer than three"


def dangling_network_policy(manifests: Manifests) -> Findings:
    for policy in of_kind(manifests, "NetworkPolicy"):
        if not selected(manifests, policy["spec"]["podSelector"]):
            yield f"{name_of(policy)} is for no pod"


def dangling_peer(manifests: Manifests) -> Findings:
    """Peers in our own namespace that are no pods of ours; some belong to a component that was left out."""
    for policy in of_kind(manifests, "NetworkPolicy"):
        rules = policy["spec"].get("ingress", []) + policy["spec"].get("egress", [])
        for peer in (peer for rule in rules for peer in [*rule.get("from", []), *rule.get("to", [])]):
            labels = peer.get("podSelector", {}).get("matchLabels", {})
            if labels and not _of_component(labels) and not selected(manifests, peer["podSelector"]):
                yield f"{name_of(policy)} names {labels}, which is no pod"


def _of_component(labels: Mapping[str, str]) -> bool:
    """Whether these are of pods that policies name for those who have them."""
    name, component = (labels.get(f"app.kubernetes.io/{label}") for label in ("name", "component"))
    return name == "redis" or component in {"deletion-cost", "edge"}


def sidecar_policy_ports(manifests: Manifests) -> Findings:
    """Names of ports that only initial containers have: a plugin that does not look there refuses everything."""
    for policy in of_kind(manifests, "NetworkPolicy"):
        own = policy["spec"]["podSelector"]
        sides = [(rule, [own]) for rule in policy["spec"].get("ingress", [])]
        sides += [
            (rule, [peer["podSelector"] for peer in rule.get("to", []) if "podSelector" in peer])
            for rule in policy["spec"].get("egress", [])
        ]
        for rule, selectors_of_pods in sides:
            names = {port["port"] for port in rule.get("ports", []) if isinstance(port.get("port"), str)}
            for workload in (one for selector in selectors_of_pods for one in selected(manifests, selector)):
                known = {port.get("name") for one in pod_of(workload)["containers"] for port in one.get("ports", [])}
                for name in sorted(names - known):
                    yield f"{name_of(policy)} names {name}, which is no port of {name_of(workload)}'s containers"


def non_isolated_pod(manifests: Manifests) -> Findings:
    policies = of_kind(manifests, "NetworkPolicy")
    if not any(policy["metadata"]["name"] == "default-deny" for policy in policies):
        return  # without the component nothing is isolated, as its README says
    for workload in workloads(manifests):
        own = [
            policy
            for policy in policies
            if policy["spec"]["podSelector"] and workload in selected(manifests, policy["spec"]["podSelector"])
        ]
        if not own:
            yield f"{name_of(workload)} is denied everything"


def dangling_monitor(manifests: Manifests) -> Findings:
    for monitor in of_kind(manifests, "PodMonitor", "ServiceMonitor"):
        found = selected(manifests, monitor["spec"]["selector"])
        if not found:
            yield f"{name_of(monitor)} watches no pod"
        for endpoint in monitor["spec"].get("podMetricsEndpoints", []):
            for workload in found:
                if endpoint["port"] not in _ports(workload):
                    yield f"{name_of(monitor)} asks {endpoint['port']}, which {name_of(workload)} has not"


def dangling_route(manifests: Manifests) -> Findings:
    services = {one["metadata"]["name"]: one for one in of_kind(manifests, "Service")}
    wanted: list[tuple[Manifest, str, object]] = []
    for route in of_kind(manifests, "HTTPRoute"):
        wanted += [
            (route, to["name"], to["port"]) for rule in route["spec"]["rules"] for to in rule.get("backendRefs", [])
        ]
    for ingress in of_kind(manifests, "Ingress"):
        for rule in ingress["spec"]["rules"]:
            backends = [path["backend"]["service"] for path in rule["http"]["paths"]]
            wanted += [(ingress, to["name"], *to["port"].values()) for to in backends]
    for manifest, service, port in wanted:
        ports = services[service]["spec"]["ports"] if service in services else []
        if port not in {known[key] for known in ports for key in ("name", "port")}:
            yield f"{name_of(manifest)} leads to {service}:{port}, which is not there"


def _replicas(workload: Manifest, manifests: Manifests) -> int:
    """How many there are at least: what an autoscaler leaves, or what is asked for."""
    for scaler in of_kind(manifests, "HorizontalPodAutoscaler", "ScaledObject"):
        spec = scaler["spec"]
        if spec["scaleTargetRef"]["name"] == workload["metadata"]["name"]:
            return int(spec.get("minReplicas", spec.get("minReplicaCount", 1)))
    return int(workload["spec"].get("replicas", 1))


def _pods(share: int | str, replicas: int) -> int:
    """A number of pods, or of so many a percentage, which Kubernetes rounds up."""
    return math.ceil(replicas * int(share.removesuffix("%")) / 100) if isinstance(share, str) else share


def budgets_for_none(manifests: Manifests) -> Findings:
    for budget in of_kind(manifests, "PodDisruptionBudget"):
        if budget["spec"].get("maxUnavailable") in (0, "0%"):
            yield f"{name_of(budget)} lets no node be drained"


def budgets_for_all(manifests: Manifests) -> Findings:
    for budget in of_kind(manifests, "PodDisruptionBudget"):
        if "minAvailable" not in budget["spec"]:
            continue
        for workload in selected(manifests, budget["spec"]["selector"]):
            replicas = _replicas(workload, manifests)
            if _pods(budget["spec"]["minAvailable"], replicas) >= replicas:
                yield f"{name_of(budget)} lets no node of {name_of(workload)} be drained"


def budgets_for_the_unhealthy(manifests: Manifests) -> Findings:
    for budget in of_kind(manifests, "PodDisruptionBudget"):
        if budget["spec"].get("unhealthyPodEvictionPolicy") != "AlwaysAllow":
            yield f"{name_of(budget)} protects pods that serve nobody"


def budgets(manifests: Manifests) -> Findings:
    """One for all that is to stay."""
    found = of_kind(manifests, "PodDisruptionBudget")
    for workload in workloads(manifests):
        if workload["kind"] == "Job":  # it ends by itself, and nobody is without it
            continue
        if sum(workload in selected(manifests, budget["spec"]["selector"]) for budget in found) != 1:
            yield f"{name_of(workload)} has not exactly one budget"


def priority_classes(manifests: Manifests) -> Findings:
    there = PRIORITY_CLASSES | {one["metadata"]["name"] for one in of_kind(manifests, "PriorityClass")}
    for workload in workloads(manifests):
        name = pod_of(workload).get("priorityClassName")
        if name is not None and name not in there:
            yield f"{name_of(workload)} has the priority {name}, which is not there: none of its pods is let in"


def service_accounts(manifests: Manifests) -> Findings:
    there = {one["metadata"]["name"] for one in of_kind(manifests, "ServiceAccount")}
    for workload in workloads(manifests):
        if pod_of(workload)["serviceAccountName"] not in there:
            yield f"{name_of(workload)} has an account that is not there"


def tokens(manifests: Manifests) -> Findings:
    """A token of the cluster's API for whom no role allows anything; where nothing is said, there is one."""
    bound = {subject["name"] for binding in of_kind(manifests, "RoleBinding") for subject in binding["subjects"]}
    for workload in workloads(manifests):
        pod = pod_of(workload)
        if pod.get("automountServiceAccountToken") is not False and pod["serviceAccountName"] not in bound:
            yield f"{name_of(workload)} has a token that is good for nothing"


def namespaces(manifests: Manifests) -> Findings:
    for manifest in manifests:
        if manifest["kind"] not in CLUSTER_SCOPED and manifest["metadata"].get("namespace", "default") == "default":
            yield f"{name_of(manifest)} has no namespace"


def wildcards(manifests: Manifests) -> Findings:
    for role in of_kind(manifests, "Role", "ClusterRole"):
        if any("*" in [*rule.get("verbs", []), *rule.get("resources", [])] for rule in role["rules"]):
            yield f"{name_of(role)} allows everything"


REFERENCES: dict[str, Callable[[Manifests], Findings]] = {
    "dangling-service": dangling_service,
    "invalid-target-ports": invalid_target_ports,
    "exposed-services": exposed_services,
    "dangling-horizontalpodautoscaler": dangling_autoscaler,
    "hpa-minimum-three-replicas": autoscaler_replicas,
    "autoscaler-of-other-namespace": autoscaler_namespaces,
    "dangling-networkpolicy": dangling_network_policy,
    "dangling-networkpolicypeer-podselector": dangling_peer,
    "networkpolicy-port-of-sidecar": sidecar_policy_ports,
    "non-isolated-pod": non_isolated_pod,
    "dangling-servicemonitor": dangling_monitor,
    "dangling-ingress": dangling_route,
    "pdb-max-unavailable": budgets_for_none,
    "pdb-min-available": budgets_for_all,
    "pdb-unhealthy-pod-eviction-policy": budgets_for_the_unhealthy,
    "pdb": budgets,
    "priority-class-name": priority_classes,
    "non-existent-service-account": service_accounts,
    "token-without-rights": tokens,
    "use-namespace": namespaces,
    "wildcard-in-rules": wildcards,
}
