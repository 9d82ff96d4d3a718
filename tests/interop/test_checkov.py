"""checkov finds nothing in what is kept as built, every component among it, and skips only what says why.

`make interop` runs it.
"""

import json
import subprocess
from pathlib import Path

import pytest

from scripts.kubernetes_golden import COMBINATIONS, OVERLAYS
from scripts.kustomize import build
from tests.support.launched import HOME
from tests.support.manifests import KUBERNETES

pytestmark = pytest.mark.interop

CHECKOV = HOME / ".tools/checkov/bin/checkov"
SECONDS_MAX = 100


@pytest.mark.parametrize("folder", [*OVERLAYS, *COMBINATIONS])
def test_checkov_finds_nothing_in_what_is_built(folder: str, tmp_path: Path) -> None:
    built = tmp_path / "built.yaml"
    built.write_text(build(KUBERNETES / folder))
    command = [str(CHECKOV), "--framework", "kubernetes", "--skip-download", "--output", "json", "--file", str(built)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS_MAX)
    found = json.loads(done.stdout)
    assert [(one["check_id"], one["resource"]) for one in found["results"]["failed_checks"]] == []
    assert found["summary"]["passed"] > 80
    assert all(len(one["check_result"]["suppress_comment"]) > 20 for one in found["results"]["skipped_checks"])
    assert done.returncode == 0
