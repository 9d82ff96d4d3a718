"""Every route is asked whatever its own schema allows, and what it does not, and answers as the schema says."""

import subprocess
import sys
from pathlib import Path

from tests.support.server import AppServer

CONFIG = Path(__file__).with_name("schemathesis.toml")
# Of asking; a slower machine asks less. Starting and loading come on top.
ASKING_SECONDS = 25
RUN_SECONDS_MAX = 300
SECONDS = {
    "SLUICE_STREAM_SECONDS_MAX": "0.3",  # whatever is asked for
    "SLUICE_HEARTBEAT_SECONDS": "1",
    "SLUICE_STREAM_TTL_SECONDS": "120",
}
# DELETE stops what is being generated; what was said stays readable for as long as any stream does.
CHECKS = ["--checks", "all", "--exclude-checks", "use_after_free"]


def test_no_request_that_can_be_thought_of_finds_an_answer_that_the_schema_does_not_know(tmp_path: Path) -> None:
    with AppServer(**SECONDS) as server:
        options = [*CHECKS, "--max-time", str(ASKING_SECONDS), "--seed", "1", "--request-timeout", "20"]
        ran = subprocess.run(
            [
                *(sys.executable, "-m", "schemathesis.cli", "--config-file", str(CONFIG)),
                *("run", f"http://127.0.0.1:{server.port}/openapi.json", *options),
                *("--continue-on-failure", "--no-color", "--warnings", "off"),
            ],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=RUN_SECONDS_MAX,
        )
        assert ran.returncode == 0, ran.stdout[-8000:] + ran.stderr[-2000:]
        assert "No issues found" in ran.stdout
        assert server.lines(level="error") == [], "nothing that was asked is a defect"
