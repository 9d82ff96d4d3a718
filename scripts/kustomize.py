"""Builds a kustomization as `kubectl apply -k` does."""

import re
import subprocess
import sys
from pathlib import Path

KUBECTL = Path(sys.executable).with_name("kubectl")
BUILD_SECONDS_MAX = 60
# Its suffix of what it makes from files: letters and digits that it takes for no word.
HASH = re.compile(r"-[bcdfghkmt2456789]{10}$")


class BuildError(Exception):
    """It was not built, or not without a warning."""


def build(folder: Path) -> str:
    """The YAML.

    Raises:
        BuildError: with what kubectl said.
    """
    command = [str(KUBECTL), "kustomize", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=BUILD_SECONDS_MAX, check=False)
    # Deprecated fields are warned of there.
    if done.returncode or done.stderr:
        raise BuildError(f"kubectl kustomize {folder}: {done.stderr.strip()}")
    return done.stdout
