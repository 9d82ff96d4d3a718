"""Runs the tests of the browser client, which are written for Node's test runner."""

import shutil
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).parent
NODE_SECONDS_MAX = 100


def test_the_browser_client_passes_its_own_tests() -> None:
    if shutil.which("node") is None:
        pytest.skip("node is not installed")
    files = sorted(str(path) for path in HERE.glob("*.test.mjs"))
    # `timeout`, and not the argument of that name: what was printed until then is to be seen.
    command = ["timeout", str(NODE_SECONDS_MAX), "node", "--test", "--test-reporter=tap", *files]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    # A runner that finds nothing to run is content too.
    assert len(files) == 2
    assert "\n# pass 0\n" not in done.stdout
    assert "\n# skipped 0\n" in done.stdout
