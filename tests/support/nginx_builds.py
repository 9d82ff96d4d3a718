"""The NGINX of this machine, and a newer one beside it: the configuration is right on both."""

import os
import shutil
from pathlib import Path

import pytest

HOME = Path(__file__).resolve().parents[2]
NEWER = HOME / ".tools" / "nginx-newer" / "nginx"


def installed() -> str:
    """The one that `make run` takes: Debian's."""
    found = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/local/sbin:/usr/sbin")
    assert found, "nginx is missing"
    return found


def newer() -> str:
    """The test is skipped where there is none."""
    if not NEWER.exists():
        pytest.skip("no newer NGINX: scripts/newer-nginx.sh could not get one")
    return str(NEWER)


def build_named(name: str) -> str:
    return newer() if name == "newer" else installed()


# For tests that hold on both.
BUILDS = ("installed", "newer")
EVERY_BUILD = pytest.mark.parametrize("nginx", BUILDS)
