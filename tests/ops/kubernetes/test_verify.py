"""`make k8s-verify`, with a kubectl that has no cluster: what it asks for in which order, and what it makes of it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from app.timeouts import ledger
from scripts.kubernetes_streams import STREAMS, TOKENS, TOKENS_PER_SECOND
from scripts.kubernetes_verify import PORTS, in_namespace
from scripts.kustomize import build
from tests.support.launched import HOME
from tests.support.manifests import CLUSTER_SCOPED, container, containers, of_kind, overlay, settings, sluice_pod

FAKE = HOME / "tests" / "support" / "fake_kubectl.py"
VERBS = ["create", "apply", "apply", "rollout", "get", "port-forward", "rollout", "get", "rollout", "delete"]
SECONDS_MAX = 60


class Verified:
    """One run."""

    def __init__(self, folder: Path, *words: str, fault: str = "") -> None:
        self.folder = folder / "tmp"
        self.folder.mkdir()
        program, log = folder / "kubectl", folder / "log"
        program.write_text(f'#!/bin/sh\nexec {sys.executable} {FAKE} "$@"\n')
        program.chmod(0o755)
        log.touch()
        self.done = subprocess.run(
            [sys.executable, "-m", "scripts.kubernetes_verify", "--context", "here", "--kubectl", program, *words],
            cwd=HOME,
            env=os.environ | {"FAKE_KUBECTL_LOG": str(log), "FAKE_KUBECTL_FAULT": fault, "TMPDIR": str(self.folder)},
            capture_output=True,
            text=True,
            timeout=SECONDS_MAX,
        )
        lines = [json.loads(line) for line in log.read_text().splitlines()]
        # What is asked again and again counts once.
        lines = [
            line for line, before in zip(lines, [{}, *lines], strict=False) if line["words"] != before.get("words")
        ]
        self.asked: list[list[str]] = [line["words"] for line in lines]
        self.open: list[int] = [line["open"] for line in lines]

    @property
    def verbs(self) -> list[str]:
        return [next(word for word in words if word in VERBS) for words in self.asked]


def test_it_asks_for_everything_in_order_and_cleans_up(tmp_path: Path) -> None:
    verified = Verified(tmp_path)
    assert verified.done.returncode == 0, verified.done.stderr
    assert f"{STREAMS} streams, {STREAMS} of them open when their pod was told to stop" in verified.done.stdout
    assert verified.verbs == VERBS
    assert all(words[:2] == ["--context", "here"] for words in verified.asked)
    # A namespace of its own, in which the server looks at everything before anything is made.
    namespace = verified.asked[0][-1]
    assert namespace.startswith("sluice-verify-")
    assert all(namespace in words for words in verified.asked)
    assert "--dry-run=server" in verified.asked[1]
    assert "--dry-run=server" not in verified.asked[2]
    # The pod that is ready and stays, not the one that goes.
    assert "pod/new" in verified.asked[5]
    # All streams are open when the rollout is asked for, and when the pod is told to go.
    assert verified.asked[6][-3:] == ["rollout", "restart", "deployment/sluice"]
    assert "pod/new" in verified.asked[7]
    assert verified.open[6:8] == [STREAMS, STREAMS]
    assert list(verified.folder.iterdir()) == []


@pytest.mark.parametrize(
    ("fault", "said", "last"),
    [
        ("create", "create namespace: error: create was refused", "create"),
        ("apply", "apply --kustomize: error: apply was refused", "delete"),
        ("rollout", "rollout status: error: rollout was refused", "delete"),
        ("unready", "no pod is ready", "delete"),
        ("port-forward", "no port was forwarded to pod/new", "delete"),
        ("refused", f"0 of {STREAMS} streams complete; others: ['status 503, 0 of", "delete"),
        ("cut", f"0 of {STREAMS} streams complete; others: ['status 200,", "delete"),
        ("over", f"0 of {STREAMS} streams were open when their pod was told to stop: too few to tell", "delete"),
    ],
)
def test_what_goes_wrong_is_said_in_a_line_and_nothing_stays(tmp_path: Path, fault: str, said: str, last: str) -> None:
    verified = Verified(tmp_path, fault=fault)
    assert verified.done.returncode == 1
    assert verified.done.stderr.startswith("k8s-verify: ")
    assert said in verified.done.stderr
    assert verified.verbs[-1] == last
    assert list(verified.folder.iterdir()) == []


def test_a_dry_run_shows_every_command_and_runs_none(tmp_path: Path) -> None:
    verified = Verified(tmp_path, "--dry-run")
    assert verified.done.returncode == 0
    assert verified.asked == []
    shown = [line for line in verified.done.stdout.splitlines() if line.startswith("+ ")]
    assert [next(word for word in line.split() if word in VERBS) for line in shown] == VERBS


def test_what_is_applied_is_the_dev_overlay_in_the_other_namespace_and_nothing_outside_it() -> None:
    """As the real kubectl builds it: what kept a namespace of its own would not be taken away again."""
    with in_namespace("sluice-verify-1") as folder:
        built = list(yaml.safe_load_all(build(folder)))
    (namespace,) = of_kind(built, "Namespace")
    assert {one["kind"] for one in built} & CLUSTER_SCOPED == {"Namespace"}
    assert namespace["metadata"]["name"] == "sluice-verify-1"
    assert {one["metadata"]["namespace"] for one in built if one is not namespace} == {"sluice-verify-1"}
    # But for that it is the overlay.
    assert yaml.safe_dump_all(built).replace("sluice-verify-1", "sluice-dev") == yaml.safe_dump_all(overlay("dev"))


def test_its_streams_fit_the_waits_of_the_pod_that_it_rolls() -> None:
    pod = sluice_pod(overlay("dev"))
    pause: int = container(pod, "app")["lifecycle"]["preStop"]["sleep"]["seconds"]
    drain = float(settings(overlay("dev")).get("SLUICE_DRAIN_SECONDS", ledger()["drain_seconds"]))
    # Begun before the deletion is seen, they end within the drain; of those that are open then, most outlast the pause.
    assert pause * 2 < TOKENS / TOKENS_PER_SECOND < pause + drain - 10
    assert set(PORTS) == {port["containerPort"] for one in containers(pod) for port in one.get("ports", [])}


def test_without_a_context_nothing_is_done() -> None:
    command = [sys.executable, "-m", "scripts.kubernetes_verify"]
    done = subprocess.run(command, cwd=HOME, capture_output=True, text=True, timeout=SECONDS_MAX)
    assert done.returncode == 2
    assert "--context" in done.stderr
