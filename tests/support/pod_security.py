"""The profile `restricted` of Kubernetes' PodSecurity admission, as its standard lists it.

https://kubernetes.io/docs/concepts/security/pod-security-standards/
"""

from collections.abc import Iterator

from tests.support.manifests import Manifest, containers

VOLUMES = {
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "persistentVolumeClaim",
    "projected",
    "secret",
}
SECCOMP = {"RuntimeDefault", "Localhost"}
SYSCTLS = {
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ping_group_range",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.tcp_wmem",
}


def violations(pod: Manifest) -> list[str]:
    """What admission would refuse the pod for."""
    return [*_of_pod(pod), *(wrong for one in containers(pod) for wrong in _of_container(one, pod))]


def _of_pod(pod: Manifest) -> Iterator[str]:
    for name in ("hostNetwork", "hostPID", "hostIPC"):
        if pod.get(name):
            yield name
    for volume in pod.get("volumes", []):
        kinds = volume.keys() - {"name"}
        if kinds - VOLUMES:
            yield f"volume {volume['name']}: {kinds - VOLUMES}"
    for sysctl in pod.get("securityContext", {}).get("sysctls", []):
        if sysctl["name"] not in SYSCTLS:
            yield f"sysctl {sysctl['name']}"


def _of_container(container: Manifest, pod: Manifest) -> Iterator[str]:
    yield from _of_process(container, pod)
    name, own = container["name"], container.get("securityContext", {})
    if own.get("privileged"):
        yield f"{name}: privileged"
    if own.get("allowPrivilegeEscalation") is not False:
        yield f"{name}: allowPrivilegeEscalation"
    if "ALL" not in own.get("capabilities", {}).get("drop", []):
        yield f"{name}: keeps capabilities"
    if set(own.get("capabilities", {}).get("add", [])) - {"NET_BIND_SERVICE"}:
        yield f"{name}: adds capabilities"
    if own.get("procMount", "Default") != "Default":
        yield f"{name}: procMount"
    if any("hostPort" in port for port in container.get("ports", [])):
        yield f"{name}: hostPort"
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        if "host" in container.get(probe, {}).get("httpGet", {}):
            yield f"{name}: {probe} with a host"


def _of_process(container: Manifest, pod: Manifest) -> Iterator[str]:
    """What the pod may say for all of its containers."""
    name, own, shared = container["name"], container.get("securityContext", {}), pod.get("securityContext", {})
    if not own.get("runAsNonRoot", shared.get("runAsNonRoot")):
        yield f"{name}: runAsNonRoot"
    if own.get("runAsUser", shared.get("runAsUser", 1)) == 0:
        yield f"{name}: runAsUser 0"
    if own.get("seccompProfile", shared.get("seccompProfile", {})).get("type") not in SECCOMP:
        yield f"{name}: seccompProfile"
