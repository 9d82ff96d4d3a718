"""What is measured beside others, on a machine that does nothing else: LiteLLM starts, and a token keeps its limits."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.launched import HOME


def run(*words: str, seconds: float) -> "subprocess.CompletedProcess[str]":
    env = {name: value for name, value in os.environ.items() if not name.startswith("SLUICE_")}
    command = [sys.executable, "-m", *words]
    return subprocess.run(command, cwd=HOME, env=env, capture_output=True, text=True, timeout=seconds, check=False)


@pytest.mark.soak
@pytest.mark.timeout(300)
def test_litellm_s_proxy_streams_what_sluice_does(tmp_path: Path) -> None:
    """The load is one that it carries: how much more it costs is what `make compare` tells."""
    words = ("--only", "sluice", "litellm", "--profile", "smoke", "--streams", "4", "--streams-max", "0")
    done = run("loadtests.compare", *words, "--no-write", "--state", str(tmp_path), seconds=280)

    assert done.returncode == 0, done.stderr
    document = json.loads((tmp_path / "comparison.json").read_text())
    ours, theirs = document["systems"]
    assert (ours["kept"], theirs["kept"]) == (True, True)
    assert 0 < ours["cpu_us_per_token"] < theirs["cpu_us_per_token"]
    assert document["litellm"][0].isdigit()
    assert {"sluice", "commit"} <= document["versions"].keys()


@pytest.mark.soak
@pytest.mark.timeout(720)
def test_a_token_keeps_its_limits_beside_nginx_alone(tmp_path: Path) -> None:
    """What `make bench ARGS=--assert` judges: valid rows, the ratio of costs, and what is added to the first token."""
    words = ("--assert", "--streams", "200", "--only", "origin", "yardstick", "sluice", "unseen", "nginx")
    done = run("loadtests.bench", *words, "--rounds", "3", "--state", str(tmp_path), seconds=700)

    assert done.returncode == 0, done.stdout + done.stderr
