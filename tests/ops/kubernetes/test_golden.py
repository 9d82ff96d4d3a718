"""The kept manifests are what is built; what a reviewer has to see changes them, and nothing else does."""

import re

import pytest
import yaml

from scripts import kubernetes_golden
from scripts.kubernetes_golden import FOLDERS, GOLDEN, reviewed
from scripts.kustomize import build
from tests.support import combinations
from tests.support.manifests import KUBERNETES


@pytest.fixture(scope="module")
def built() -> str:
    return build(KUBERNETES / "overlays/staging")


def test_what_is_kept_is_what_is_built() -> None:
    found = kubernetes_golden.files()
    assert {path.stem for path in found} == {folder.rpartition("/")[2] for folder in FOLDERS}
    assert set(GOLDEN.iterdir()) == found.keys()
    different = [path.name for path, text in found.items() if path.read_text() != text]
    assert different == [], "run `make generate`, and look at what has changed"


def test_every_component_is_in_something_that_is_kept() -> None:
    kept = {
        (KUBERNETES / folder / path).resolve()
        for folder in FOLDERS
        for path in yaml.safe_load((KUBERNETES / folder / "kustomization.yaml").read_text()).get("components", [])
    }
    missing = [name for name in combinations.components() if KUBERNETES / "components" / name not in kept]
    assert missing == []


def test_a_grace_of_another_second_is_one_line_that_differs(built: str) -> None:
    (line,) = [line for line in built.splitlines() if "terminationGracePeriodSeconds: 130" in line]
    damaged = reviewed(built.replace(line, line.replace("130", "131"))).splitlines()
    assert [new for new, old in zip(damaged, reviewed(built).splitlines(), strict=True) if new != old] == [
        line.replace("130", "131")
    ]


def test_a_setting_of_another_value_differs(built: str) -> None:
    assert reviewed(built.replace("redis://sluice-redis:6379/0", "redis://other:6379/0")) != reviewed(built)


def test_other_contents_of_nginxs_files_and_the_suffix_that_follows_do_not_differ(built: str) -> None:
    other = re.sub(r"(sluice-nginx)-[a-z0-9]{10}\b", r"\1-bcdfghkmt2", built)
    assert other != built
    other = other.replace("keepalive_timeout", "keepalive_timeout  ")
    assert reviewed(other) == reviewed(built)


def test_a_file_of_nginxs_that_is_missing_differs(built: str) -> None:
    assert reviewed(built.replace("  conf.d.ops.conf: |", "  conf.d.other.conf: |")) != reviewed(built)
