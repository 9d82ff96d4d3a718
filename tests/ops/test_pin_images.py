"""`make pin-images` writes what a registry says, and nothing where it says nothing."""

import os
import re
import shutil
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from scripts.overlay_images import images, with_digest
from scripts.pin_images import OVERLAYS, PLACES, pin
from tests.support.launched import HOME

DIGEST = "sha256:" + "0123456789abcdef" * 4
OTHER = "sha256:" + "fedcba9876543210" * 4
REGISTRY = "registry.example:5000/team"
PRODUCTION = "k8s/overlays/production/kustomization.yaml"
PROGRAM_SECONDS_MAX = 120


def skopeo(folder: Path, unknown: str) -> Path:
    """A folder with one that knows every image but these."""
    program = folder / "bin" / "skopeo"
    program.parent.mkdir(exist_ok=True)
    program.write_text(f'#!/bin/sh\ncase "$*" in {unknown}) echo "no such image" >&2; exit 1;; esac\necho {DIGEST}\n')
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    return program.parent


@pytest.fixture
def copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The files; production's images are in a registry, staging's in none, and Redis' is not known."""
    for name in [*(place for place, _ in PLACES), *OVERLAYS]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(HOME / name, tmp_path / name)
    production = tmp_path / PRODUCTION
    production.write_text(production.read_text().replace("newName: sluice", f"newName: {REGISTRY}/sluice"))
    programs = skopeo(tmp_path, "*redis*|*//sluice*")
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    return tmp_path


def named_images(path: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = yaml.safe_load(path.read_text())["images"]
    return found


def test_each_tag_gets_the_digest_of_its_registry_and_keeps_its_tag(copy: Path) -> None:
    # Redis', and the two of staging.
    assert pin(copy) == 3
    for name, count in (("deploy/Dockerfile", 2), ("loadtests/Dockerfile", 1)):
        lines = (copy / name).read_text().splitlines()
        pinned = [line for line in lines if line.startswith("ARG") and "_IMAGE=" in line]
        assert len(pinned) == count
        assert all(line.endswith(f"@{DIGEST}") and ":" in line.split("@")[0] for line in pinned)
    # Again, it is the same.
    before = (copy / "deploy/Dockerfile").read_text(), (copy / PRODUCTION).read_text()
    pin(copy)
    assert ((copy / "deploy/Dockerfile").read_text(), (copy / PRODUCTION).read_text()) == before


def test_every_dockerfile_and_every_image_of_a_manifest_is_pinned_or_named_by_an_overlay() -> None:
    places = {name for name, _ in PLACES}
    assert {str(path.relative_to(HOME)) for path in HOME.glob("*/Dockerfile")} <= places
    manifests = [path for path in (HOME / "k8s").glob("*/**/*.yaml") if path.relative_to(HOME).parts[1] != "tests"]
    for path in manifests:
        for image in re.findall(r"^ *(?:- )?image: (\S+)$", path.read_text(), re.MULTILINE):
            assert image.startswith("sluice") or str(path.relative_to(HOME)) in places, (path, image)


def test_images_of_ours_get_the_digest_of_the_registry_that_an_overlay_names(copy: Path) -> None:
    before = (copy / PRODUCTION).read_text()
    pin(copy)
    assert named_images(copy / PRODUCTION) == [
        {"name": name, "newName": f"{REGISTRY}/{name}", "newTag": "0.1.0", "digest": DIGEST}
        for name in ("sluice", "sluice-nginx")
    ]
    # Nothing else of what people wrote is touched.
    assert (copy / PRODUCTION).read_text().replace(f", digest: {DIGEST}", "") == before


def test_what_no_registry_knows_stays_as_it_is_and_is_said(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pin(copy)
    for name in ("k8s/components/redis/statefulset.yaml", "k8s/overlays/staging/kustomization.yaml"):
        assert (copy / name).read_text() == (HOME / name).read_text()
    said = capsys.readouterr().err
    for image in ("redis:", "sluice:", "sluice-nginx:"):
        assert re.search(rf"pin-images: {image}\S+: no such image", said)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (
            "images:\n- name: a\n  newTag: '1'  # why\nx: 1\n",
            "images:\n- name: a\n  newTag: '1'\n  digest: D  # why\nx: 1\n",
        ),
        ("images:\n  - newTag: v1\n    name: a\n", "images:\n  - newTag: v1\n    digest: D\n    name: a\n"),
        ("images: [{name: a, newTag: v1}]\n", "images: [{name: a, newTag: v1, digest: D}]\n"),
        (f"images:\n- {{digest: {OTHER}, name: a, newTag: v2}}\n", "images:\n- {digest: D, name: a, newTag: v2}\n"),
        (f"images:\n- name: a\n  digest: {OTHER}\n  newTag: v2\n", "images:\n- name: a\n  digest: D\n  newTag: v2\n"),
        (
            "images:\n- {name: a, newName: b}\n- {name: c, newTag: v1}\n",
            "images:\n- {name: a, newName: b}\n- {name: c, newTag: v1, digest: D}\n",
        ),
        ("images: []\n", "images: []\n"),
        ("resources: []\n", "resources: []\n"),
    ],
)
def test_a_digest_is_put_where_it_belongs_however_the_entry_is_written(before: str, after: str) -> None:
    text = before
    for image in images(text):
        text = with_digest(text, image, "D")
    assert text == after
    for entry in yaml.safe_load(text).get("images", []):
        assert entry.get("digest", "") == ("D" if "newTag" in entry else "")


def test_what_is_kept_as_built_follows(tmp_path: Path) -> None:
    """Else the next `make check` would say that it is old."""
    home = tmp_path / "sluice"
    ignored = shutil.ignore_patterns("__pycache__", "build", "node_modules")
    for name in ("app", "deploy", "k8s", "nginx", "scripts"):
        shutil.copytree(HOME / name, home / name, ignore=ignored)
    (home / "loadtests").mkdir()
    shutil.copy(HOME / "loadtests/Dockerfile", home / "loadtests/Dockerfile")
    done = subprocess.run(
        [sys.executable, "-m", "scripts.pin_images"],
        cwd=home,
        env=os.environ | {"PATH": f"{skopeo(tmp_path, '-')}:{os.environ['PATH']}", "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=PROGRAM_SECONDS_MAX,
    )
    assert done.returncode == 0, done.stderr
    kept = (home / "k8s/tests/golden/production.yaml").read_text()
    found = re.findall(r"^ +(?:- )?image: (\S+)$", kept, re.MULTILINE)
    assert len(found) >= 6
    assert all(re.fullmatch(rf"[\w-]+:[\w.-]+@{DIGEST}", image) for image in found), found
    assert DIGEST not in (home / "k8s/tests/golden/dev.yaml").read_text()
