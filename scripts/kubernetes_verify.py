"""`make k8s-verify CONTEXT=…`: applies the dev overlay to a cluster, rolls it under streams, and takes it away again.

In a namespace of its own, which nothing else has had; the cluster is whichever `kubectl` reaches by that context. With
`--dry-run`, says what would be done and does nothing. Ends with 0 if no token was lost though the pod that was replaced
had streams to end.
"""

import argparse
import contextlib
import json
import os
import re
import secrets
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from app.timeouts import ledger
from scripts.kubernetes_streams import COMPLETE, STREAMS, Readers
from scripts.regions import HOME

OVERLAY = HOME / "k8s" / "overlays" / "dev"
READY_SECONDS_MAX = 300
ROLL_SECONDS_MAX = 600
DELETE_SECONDS_MAX = 300
FORWARD_SECONDS_MAX = 30
LOOK_SECONDS = 1.0
# With the pause before it well within the time for which a deleted pod's NGINX goes on accepting: what the readers
# begin behind that is refused, and would look like a stream that was cut.
LOOK_SECONDS_MAX = ledger()["nginx_quit_seconds"] / 2
# Of the pod: NGINX's, and the exporter's.
PORTS = (8080, 9464)
FORWARDED = re.compile(r"(127\.0\.0\.1:\d+) -> (\d+)")


class Failed(Exception):
    """The cluster is not as it should be; the message is one line."""


@dataclass
class Kubectl:
    """Runs kubectl in one context and namespace; in a dry run, only says how."""

    program: str
    context: str
    namespace: str
    dry_run: bool
    _said: list[str] = field(default_factory=list)

    def command(self, *words: str, namespaced: bool = True) -> list[str]:
        where = ["--context", self.context] + (["--namespace", self.namespace] if namespaced else [])
        return [self.program, *where, *words]

    def run(self, *words: str, seconds_max: float, namespaced: bool = True) -> str:
        command = self.command(*words, namespaced=namespaced)
        self._say(command)
        if self.dry_run:
            return ""
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=seconds_max, check=False)
        except subprocess.TimeoutExpired:
            raise Failed(f"kubectl {words[0]} took more than {seconds_max:g} s") from None
        if done.returncode:
            raise Failed(f"kubectl {' '.join(words[:2])}: {' '.join(done.stderr.split())[:500]}")
        return done.stdout

    @contextlib.contextmanager
    def forwarded(self, pod: str) -> Iterator[list[str]]:
        """Local addresses that lead to the ports of a pod, as long as the pod lives."""
        command = self.command("port-forward", pod, *(f":{port}" for port in PORTS), "--address", "127.0.0.1")
        self._say(command)
        if self.dry_run:
            yield ["" for _ in PORTS]
            return
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
            # A kubectl that reaches nothing says nothing either.
            watch = threading.Timer(FORWARD_SECONDS_MAX, process.kill)
            watch.start()
            try:
                assert process.stdout is not None
                said = "".join(process.stdout.readline() for _ in PORTS)
                watch.cancel()
                found = {int(port): address for address, port in FORWARDED.findall(said)}
                if found.keys() != set(PORTS):
                    raise Failed(f"no port was forwarded to {pod}: {said.strip()!r}")
                yield [found[port] for port in PORTS]
            finally:
                watch.cancel()
                process.kill()

    def _say(self, command: list[str]) -> None:
        """Once, however often it is asked in turn."""
        if command != self._said:
            print("+ " + " ".join(command), flush=True)
        self._said = command


@contextlib.contextmanager
def in_namespace(namespace: str) -> Iterator[Path]:
    """The dev overlay in another namespace, as a kustomization of its own, which names the other by a relative path."""
    with tempfile.TemporaryDirectory(prefix="k8s-verify-") as made:
        folder = Path(made).resolve()
        lines = [
            "apiVersion: kustomize.config.k8s.io/v1beta1",
            "kind: Kustomization",
            f"namespace: {namespace}",
            f"resources: [{os.path.relpath(OVERLAY, folder)}]",
        ]
        (folder / "kustomization.yaml").write_text("\n".join(lines) + "\n")
        yield folder


def serving_pod(kubectl: Kubectl) -> str:
    """A pod that is ready, and not about to go."""
    if kubectl.dry_run:
        kubectl.run("get", "pods", "--selector", "app.kubernetes.io/component=api", "--output", "json", seconds_max=30)
        return "pod/NAME"
    words = ("get", "pods", "--selector", "app.kubernetes.io/component=api", "--output", "json")
    for pod in json.loads(kubectl.run(*words, seconds_max=30))["items"]:
        ready = any(one["type"] == "Ready" and one["status"] == "True" for one in pod["status"].get("conditions", []))
        if ready and "deletionTimestamp" not in pod["metadata"]:
            return f"pod/{pod['metadata']['name']}"
    raise Failed("no pod is ready")


def until_deleted(kubectl: Kubectl, pod: str) -> None:
    """Its successor is there, and was watched for `minReadySeconds`.

    Raises:
        Failed: it was not told to go, or the cluster is too slow to say when.
    """
    deadline = time.monotonic() + ROLL_SECONDS_MAX
    words = ("get", pod, "--output", "jsonpath={.metadata.deletionTimestamp}")
    while not kubectl.run(*words, seconds_max=LOOK_SECONDS_MAX) and not kubectl.dry_run:
        if time.monotonic() > deadline:
            raise Failed(f"{pod} was not told to go within {ROLL_SECONDS_MAX} s of the restart")
        time.sleep(LOOK_SECONDS)


def roll_under_streams(kubectl: Kubectl) -> Readers:
    """A rollout while a pod streams. Without Redis its readers stay with it, and it with them, to their ends."""
    pod = serving_pod(kubectl)
    with kubectl.forwarded(pod) as (nginx, exporter):
        readers = Readers(nginx, exporter)
        if not kubectl.dry_run:
            readers.begin()
            check(readers)
        kubectl.run("rollout", "restart", "deployment/sluice", seconds_max=30)
        until_deleted(kubectl, pod)
        if not kubectl.dry_run:
            readers.finish()
    wait = f"--timeout={ROLL_SECONDS_MAX}s"
    kubectl.run("rollout", "status", "deployment/sluice", wait, seconds_max=ROLL_SECONDS_MAX + 10)
    return readers


def check(readers: Readers) -> None:
    """No stream so far was anything but complete.

    Raises:
        Failed: one was; what became of it.
    """
    if readers.wrong:
        complete = readers.outcomes.count(COMPLETE)
        raise Failed(f"{complete} of {len(readers.outcomes)} streams complete; others: {sorted(set(readers.wrong))}")


def verify(kubectl: Kubectl) -> Readers:
    """Everything, and clean up whatever happened.

    Raises:
        Failed: something did not work, a stream was not complete, or too few were open to tell.
    """
    with in_namespace(kubectl.namespace) as folder:
        kubectl.run("create", "namespace", kubectl.namespace, seconds_max=30, namespaced=False)
        try:
            kubectl.run("apply", "--kustomize", str(folder), "--dry-run=server", seconds_max=60)
            kubectl.run("apply", "--kustomize", str(folder), seconds_max=60)
            wait = f"--timeout={READY_SECONDS_MAX}s"
            kubectl.run("rollout", "status", "deployment/sluice", wait, seconds_max=READY_SECONDS_MAX + 10)
            readers = roll_under_streams(kubectl)
        finally:
            kubectl.run("delete", "namespace", kubectl.namespace, seconds_max=DELETE_SECONDS_MAX, namespaced=False)
    check(readers)
    # Three quarters are expected: a stream takes a minute, and the signal comes a quarter of one behind the deletion.
    if not kubectl.dry_run and readers.draining < STREAMS / 2:
        raise Failed(
            f"{readers.draining} of {STREAMS} streams were open when their pod was told to stop: too few to tell"
        )
    return readers


def main() -> None:
    parser = argparse.ArgumentParser(prog="make k8s-verify", description="Rolls the dev overlay under streams.")
    parser.add_argument("--context", required=True, help="kubectl's name of the cluster; there is no default")
    parser.add_argument("--kubectl", default="kubectl", help="the program")
    parser.add_argument("--dry-run", action="store_true", help="say each command and run none")
    options = parser.parse_args()
    namespace = f"sluice-verify-{secrets.token_hex(3)}"
    kubectl = Kubectl(options.kubectl, options.context, namespace, options.dry_run)
    try:
        readers = verify(kubectl)
    except (Failed, FileNotFoundError) as error:
        sys.exit(f"k8s-verify: {error}")
    told = f"{len(readers.outcomes)} streams, {readers.draining} of them open when their pod was told to stop, none cut"
    print("k8s-verify: nothing was run" if options.dry_run else f"k8s-verify: {told}")


if __name__ == "__main__":
    main()
