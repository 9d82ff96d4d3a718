"""`make pin-images` writes what a registry says, and nothing where it says nothing."""

import os
import shutil
import stat
from pathlib import Path

import pytest

from scripts.pin_images import PLACES, pin
from tests.support.launched import HOME

DIGEST = "sha256:" + "0123456789abcdef" * 4


@pytest.fixture
def copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The files, and a skopeo that knows every image but Redis'."""
    for name, _ in PLACES:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(HOME / name, tmp_path / name)
    program = tmp_path / "bin" / "skopeo"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\ncase "$*" in *redis*) echo "no such image" >&2; exit 1;; esac\necho {DIGEST}\n')
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    return tmp_path


def test_each_tag_gets_the_digest_of_its_registry_and_keeps_its_tag(copy: Path) -> None:
    assert pin(copy) == 1
    lines = (copy / "deploy/Dockerfile").read_text().splitlines()
    pinned = [line for line in lines if line.startswith("ARG") and "_IMAGE=" in line]
    assert len(pinned) == 2
    assert all(line.endswith(f"@{DIGEST}") and ":" in line.split("@")[0] for line in pinned)
    # Again, it is the same.
    before = (copy / "deploy/Dockerfile").read_text()
    pin(copy)
    assert (copy / "deploy/Dockerfile").read_text() == before


def test_what_no_registry_knows_stays_as_it_is_and_is_said(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pin(copy)
    name = "k8s/components/redis/statefulset.yaml"
    assert (copy / name).read_text() == (HOME / name).read_text()
    assert "no such image" in capsys.readouterr().err
