"""`make k8s-verify CONTEXT=…`: applies the dev overlay to a cluster, rolls it under streams, and takes it away again.

In a namespace of its own, which nothing else has had; the cluster is whichever `kubectl` reaches by that context. With
`--dry-run`, says what would be done and does nothing. Ends with 0 if no token was lost.
"""

import argparse
import contextlib
import http.client
import json
import os
import secrets
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from scripts.regions import HOME

OVERLAY = HOME / "k8s" / "overlays" / "dev"
READY_SECONDS_MAX = 300
ROLL_SECONDS_MAX = 600
DELETE_SECONDS_MAX = 300
FORWARD_SECONDS_MAX = 30
STREAMS = 20
TOKENS = 400
TOKENS_PER_SECOND = 5


class Failed(Exception):
    """The cluster is not as it should be; the message is one line."""


@dataclass
class Kubectl:
    """Runs kubectl in one context and namespace; in a dry run, only says how."""

    program: str
    context: str
    namespace: str
    dry_run: bool

    def command(self, *words: str, namespaced: bool = True) -> list[str]:
        where = ["--context", self.context] + (["--namespace", self.namespace] if namespaced else [])
        return [self.program, *where, *words]

    def run(self, *words: str, seconds_max: float, namespaced: bool = True) -> str:
        command = self.command(*words, namespaced=namespaced)
        print("+ " + " ".join(command), flush=True)
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
    def forwarded(self, pod: str) -> Iterator[int]:
        """A local port that leads to a pod's, as long as the pod lives."""
        command = self.command("port-forward", pod, ":8080", "--address", "127.0.0.1")
        print("+ " + " ".join(command), flush=True)
        if self.dry_run:
            yield 0
            return
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
            # A kubectl that reaches nothing says nothing either.
            watch = threading.Timer(FORWARD_SECONDS_MAX, process.kill)
            watch.start()
            try:
                assert process.stdout is not None
                line = process.stdout.readline()
                watch.cancel()
                if "-> 8080" not in line:
                    raise Failed(f"no port was forwarded to {pod}: {line.strip()!r}")
                yield int(line.split("127.0.0.1:")[1].split()[0])
            finally:
                watch.cancel()
                process.kill()


def stream(port: int, number: int, outcomes: list[str]) -> None:
    """One stream, to its end; says what came of it."""
    body = {
        "prompt": f"Tell me {number}.",
        "stream": True,
        "simulator": {"seed": number, "tokens": TOKENS, "tokens_per_second": TOKENS_PER_SECOND},
    }
    try:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        connection.request("POST", "/api/v1/generate", json.dumps(body), {"Content-Type": "application/json"})
        answer = connection.getresponse()
        tokens, done = 0, False
        for line in answer:
            tokens += line.startswith(b"event: token")
            done = done or line.startswith(b"event: done")
        connection.close()
        whole = answer.status == http.client.OK and done and tokens == TOKENS
        outcomes.append("complete" if whole else f"status {answer.status}, {tokens} of {TOKENS} tokens, done: {done}")
    except (OSError, http.client.HTTPException) as error:
        outcomes.append(f"cut: {type(error).__name__}")


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


def roll_under_streams(kubectl: Kubectl) -> list[str]:
    """A rollout while a pod streams. Without Redis its readers stay with it, and it with them, to their ends."""
    outcomes: list[str] = []
    with kubectl.forwarded(serving_pod(kubectl)) as port:
        readers = [threading.Thread(target=stream, args=(port, number, outcomes)) for number in range(STREAMS)]
        if not kubectl.dry_run:
            for reader in readers:
                reader.start()
            time.sleep(2)
        kubectl.run("rollout", "restart", "deployment/sluice", seconds_max=30)
        wait = f"--timeout={ROLL_SECONDS_MAX}s"
        kubectl.run("rollout", "status", "deployment/sluice", wait, seconds_max=ROLL_SECONDS_MAX + 10)
        if not kubectl.dry_run:
            for reader in readers:
                reader.join(TOKENS / TOKENS_PER_SECOND + 120)
    return outcomes


def verify(kubectl: Kubectl) -> None:
    """Everything, and clean up whatever happened.

    Raises:
        Failed: something did not work, or a stream was not complete.
    """
    outcomes: list[str] = []
    with in_namespace(kubectl.namespace) as folder:
        kubectl.run("create", "namespace", kubectl.namespace, seconds_max=30, namespaced=False)
        try:
            kubectl.run("apply", "--kustomize", str(folder), "--dry-run=server", seconds_max=60)
            kubectl.run("apply", "--kustomize", str(folder), seconds_max=60)
            wait = f"--timeout={READY_SECONDS_MAX}s"
            kubectl.run("rollout", "status", "deployment/sluice", wait, seconds_max=READY_SECONDS_MAX + 10)
            outcomes = roll_under_streams(kubectl)
        finally:
            kubectl.run("delete", "namespace", kubectl.namespace, seconds_max=DELETE_SECONDS_MAX, namespaced=False)
    wrong = [outcome for outcome in outcomes if outcome != "complete"]
    if not kubectl.dry_run and (wrong or len(outcomes) != STREAMS):
        raise Failed(f"{len(outcomes) - len(wrong)} of {STREAMS} streams complete; others: {sorted(set(wrong))}")


def main() -> None:
    parser = argparse.ArgumentParser(prog="make k8s-verify", description="Rolls the dev overlay under streams.")
    parser.add_argument("--context", required=True, help="kubectl's name of the cluster; there is no default")
    parser.add_argument("--kubectl", default="kubectl", help="the program")
    parser.add_argument("--dry-run", action="store_true", help="say each command and run none")
    options = parser.parse_args()
    namespace = f"sluice-verify-{secrets.token_hex(3)}"
    kubectl = Kubectl(options.kubectl, options.context, namespace, options.dry_run)
    try:
        verify(kubectl)
    except (Failed, FileNotFoundError) as error:
        sys.exit(f"k8s-verify: {error}")
    print("k8s-verify: nothing was run" if options.dry_run else f"k8s-verify: {STREAMS} streams, none cut")


if __name__ == "__main__":
    main()
