"""kube-linter's checks of pods and containers, by its names: what each finds wrong in manifests that were built.

https://docs.kubelinter.io/#/generated/checks
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from tests.support.manifests import Manifest, containers, lasting, pod_of, workloads

Findings = Iterator[str]
Check = Callable[[Manifest, Manifest], Findings]
SENSITIVE_HOST_PATHS = ("/", "/boot", "/dev", "/etc", "/lib", "/proc", "/sys", "/usr")
# Containers that need no pause before their signal, by workload and name: no new connection is on its way to them.
WITHOUT_PRE_STOP: dict[tuple[object, ...], str] = {
    ("sluice", "exporter"): "a sidecar: it is told to stop when the app is gone, and until then says what the app does",
    ("sluice-deletion-cost", "deletion-cost"): "it listens on nothing",
    ("sluice-loadtest", "locust"): "it listens on nothing, and ends by itself",
    # Three have whom to hand over to, and must.
    (
        "sluice-redis",
        "redis",
        1,
    ): "there is no other to send anybody to: it writes its file, and those who wait try again",
}
UNSAFE_SYSCTLS = ("kernel.msg", "kernel.sem", "kernel.shm", "fs.mqueue.", "net.")


def _security(container: Manifest, pod: Manifest, name: str) -> Any:
    return container.get("securityContext", {}).get(name, pod.get("securityContext", {}).get(name))


def _ports(pod: Manifest) -> set[object]:
    """Numbers and names that a probe of any of the pod's containers may ask: they share one network."""
    return {port[key] for one in containers(pod) for port in one.get("ports", []) for key in ("containerPort", "name")}


def _probe_port(kind: str) -> Check:
    def check(container: Manifest, pod: Manifest) -> Findings:
        own = {port.get(key) for port in container.get("ports", []) for key in ("containerPort", "name")}
        for way in ("httpGet", "tcpSocket", "grpc"):
            port = container.get(kind, {}).get(way, {}).get("port")
            if port is not None and port not in own:
                yield f"asks {port}, which it does not declare"

    return check


def _needs_probe(kind: str) -> Check:
    def check(container: Manifest, pod: Manifest) -> Findings:
        if container in pod["containers"] and kind not in container:
            yield f"has no {kind}"

    return check


def _resource(name: str, *kinds: str) -> Check:
    def check(container: Manifest, pod: Manifest) -> Findings:
        for kind in kinds:
            if name not in container.get("resources", {}).get(kind, {}):
                yield f"has no {kind} of {name}"

    return check


def _when(wrong: Callable[[Manifest, Manifest], bool], what: str) -> Check:
    def check(container: Manifest, pod: Manifest) -> Findings:
        if wrong(container, pod):
            yield what

    return check


def _duplicate_variables(container: Manifest, pod: Manifest) -> Findings:
    for name, count in Counter(variable["name"] for variable in container.get("env", [])).items():
        if count > 1:
            yield f"sets {name} twice"


def _secrets_in_variables(container: Manifest, pod: Manifest) -> Findings:
    for variable in container.get("env", []):
        if "secretKeyRef" in variable.get("valueFrom", {}):
            yield f"reads {variable['name']} from a Secret into the environment"
    for source in container.get("envFrom", []):
        if "secretRef" in source:
            yield "has a whole Secret in the environment"


def _written_secrets(container: Manifest, pod: Manifest) -> Findings:
    for variable in container.get("env", []):
        if "value" in variable and any(word in variable["name"].lower() for word in ("secret", "password", "token")):
            yield f"has {variable['name']} in plain text"


def _latest(container: Manifest, pod: Manifest) -> bool:
    image: str = container["image"].rpartition("/")[2]
    return "@sha256:" not in image and (":" not in image or image.endswith(":latest"))


OF_CONTAINERS: dict[str, Check] = {
    "drop-net-raw-capability": _when(
        lambda one, _: (
            not {"ALL", "NET_RAW"} & set(one.get("securityContext", {}).get("capabilities", {}).get("drop", []))
        ),
        "keeps NET_RAW",
    ),
    "duplicate-env-var": _duplicate_variables,
    "env-var-secret": _written_secrets,
    "latest-tag": _when(_latest, "has an image without an exact tag"),
    "liveness-port": _probe_port("livenessProbe"),
    "readiness-port": _probe_port("readinessProbe"),
    "startup-port": _probe_port("startupProbe"),
    "no-liveness-probe": _needs_probe("livenessProbe"),
    "no-readiness-probe": _needs_probe("readinessProbe"),
    "no-read-only-root-fs": _when(
        lambda one, _: not one.get("securityContext", {}).get("readOnlyRootFilesystem"), "can write its root"
    ),
    "privilege-escalation-container": _when(
        lambda one, _: one.get("securityContext", {}).get("allowPrivilegeEscalation") is not False,
        "can gain privileges",
    ),
    "privileged-container": _when(
        lambda one, _: bool(one.get("securityContext", {}).get("privileged")), "is privileged"
    ),
    "privileged-ports": _when(
        lambda one, _: any(port["containerPort"] < 1024 for port in one.get("ports", [])), "has a port below 1024"
    ),
    "read-secret-from-env-var": _secrets_in_variables,
    "run-as-non-root": _when(
        lambda one, pod: not _security(one, pod, "runAsNonRoot") and not _security(one, pod, "runAsUser"), "may be root"
    ),
    "ssh-port": _when(
        lambda one, _: any(port["containerPort"] == 22 for port in one.get("ports", [])), "has SSH's port"
    ),
    "unset-cpu-requirements": _resource("cpu", "requests", "limits"),
    "unset-memory-requirements": _resource("memory", "requests", "limits"),
}


def _volumes(pod: Manifest, wrong: Callable[[str], bool], what: str) -> Findings:
    for volume in pod.get("volumes", []):
        if wrong(volume.get("hostPath", {}).get("path", "")):
            yield f"mounts {what}: {volume['name']}"


def _anti_affinity(workload: Manifest, pod: Manifest) -> Findings:
    if workload["spec"].get("replicas", 2) > 1 and "podAntiAffinity" not in pod.get("affinity", {}):
        yield "its pods may share a node"


def _unsafe_sysctls(workload: Manifest, pod: Manifest) -> Findings:
    for sysctl in pod.get("securityContext", {}).get("sysctls", []):
        if sysctl["name"].startswith(UNSAFE_SYSCTLS):
            yield f"sets {sysctl['name']}"


def _pre_stop(workload: Manifest, pod: Manifest) -> Findings:
    name = workload["metadata"]["name"]
    for one in lasting(pod):
        known: set[tuple[object, ...]] = {(name, one["name"]), (name, one["name"], workload["spec"].get("replicas"))}
        if "preStop" not in one.get("lifecycle", {}) and not known & WITHOUT_PRE_STOP.keys():
            yield f"ends {one['name']} while connections may still be on their way to it"


def _rolling(workload: Manifest, pod: Manifest) -> Findings:
    if workload["kind"] == "Deployment" and workload["spec"].get("strategy", {}).get("type") != "RollingUpdate":
        yield "does not roll"


OF_PODS: dict[str, Check] = {
    "default-service-account": _when(
        lambda _, pod: pod.get("serviceAccountName", "default") == "default", "has the default account"
    ),
    "deprecated-service-account-field": _when(lambda _, pod: "serviceAccount" in pod, "has a field of old"),
    "docker-sock": lambda _, pod: _volumes(pod, lambda path: path.endswith("docker.sock"), "the runtime's socket"),
    "host-ipc": _when(lambda _, pod: bool(pod.get("hostIPC")), "shares the node's IPC"),
    "host-network": _when(lambda _, pod: bool(pod.get("hostNetwork")), "shares the node's network"),
    "host-pid": _when(lambda _, pod: bool(pod.get("hostPID")), "sees the node's processes"),
    "no-anti-affinity": _anti_affinity,
    "no-pre-stop": _pre_stop,
    "no-rolling-update-strategy": _rolling,
    "restart-policy": _when(lambda _, pod: pod.get("restartPolicy", "Always") != "Always", "is not started again"),
    "sensitive-host-mounts": lambda _, pod: _volumes(
        pod, lambda path: path in SENSITIVE_HOST_PATHS, "a folder of the node"
    ),
    "unsafe-sysctls": _unsafe_sysctls,
    "no-extensions-v1beta": _when(lambda workload, _: "v1beta" in workload["apiVersion"], "is of an old API"),
    "job-ttl-seconds-after-finished": _when(
        lambda workload, _: workload["kind"] == "Job" and "ttlSecondsAfterFinished" not in workload["spec"],
        "stays for ever",
    ),
    "mismatching-selector": _when(
        # A Job is given a selector of its own.
        lambda workload, _: (
            not workload["spec"].get("selector", {}).get("matchLabels", {}).items()
            <= workload["spec"]["template"]["metadata"]["labels"].items()
        ),
        "does not select its own pods",
    ),
}


def is_excused(workload: Manifest, check: str) -> bool:
    """Whether it says why this check does not count for it."""
    reasons = workload["metadata"].get("annotations", {}) | workload["spec"]["template"]["metadata"].get(
        "annotations", {}
    )
    return len(reasons.get(f"ignore-check.kube-linter.io/{check}", "")) > 10


def findings(check: str, manifests: Sequence[Manifest]) -> list[str]:
    """What the check finds, but for what is excused."""
    found = []
    for workload in workloads(manifests):
        if is_excused(workload, check):
            continue
        pod, name = pod_of(workload), workload["metadata"]["name"]
        if check in OF_PODS:
            found += [f"{name} {wrong}" for wrong in OF_PODS[check](workload, pod)]
        else:
            for one in containers(pod):
                found += [f"{name}/{one['name']} {wrong}" for wrong in OF_CONTAINERS[check](one, pod)]
    return found
