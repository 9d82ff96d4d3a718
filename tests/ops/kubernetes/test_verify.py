"""`make k8s-verify`, with a kubectl that has no cluster: what it asks for in which order, and what it makes of it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.kubernetes_verify import STREAMS
from tests.support.launched import HOME

FAKE = HOME / "tests" / "support" / "fake_kubectl.py"
VERBS = ["create", "apply", "apply", "rollout", "get", "port-forward", "rollout", "rollout", "delete"]
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
        self.asked = [json.loads(line) for line in log.read_text().splitlines()]

    @property
    def verbs(self) -> list[str]:
        return [next(word for word in words if word in VERBS) for words in self.asked]


def test_it_asks_for_everything_in_order_and_cleans_up(tmp_path: Path) -> None:
    verified = Verified(tmp_path)
    assert verified.done.returncode == 0, verified.done.stderr
    assert f"{STREAMS} streams, none cut" in verified.done.stdout
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
    assert list(verified.folder.iterdir()) == []


@pytest.mark.parametrize(
    ("fault", "said", "last"),
    [
        ("create", "create namespace: error: create was refused", "create"),
        ("apply", "apply --kustomize: error: apply was refused", "delete"),
        ("rollout", "rollout status: error: rollout was refused", "delete"),
        ("unready", "no pod is ready", "delete"),
        ("port-forward", "no port was forwarded to pod/new", "delete"),
        ("cut", f"0 of {STREAMS} streams complete; others: ['status 200, 200 of 400 tokens, done: False']", "delete"),
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


def test_without_a_context_nothing_is_done() -> None:
    command = [sys.executable, "-m", "scripts.kubernetes_verify"]
    done = subprocess.run(command, cwd=HOME, capture_output=True, text=True, timeout=SECONDS_MAX)
    assert done.returncode == 2
    assert "--context" in done.stderr
