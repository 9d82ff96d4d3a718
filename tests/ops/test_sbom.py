"""The bill of materials has every package of the lock, once, with its hashes, and nothing of the day."""

import json
import re
import subprocess
import sys

import pytest
from packaging.requirements import Requirement

from app.version import VERSION
from scripts.sbom import document
from tests.support.launched import HOME

SECONDS_MAX = 60
LOCK = HOME / "requirements.lock"


@pytest.fixture(scope="module")
def written() -> str:
    command = [sys.executable, "-m", "scripts.sbom", str(LOCK)]
    return subprocess.run(command, cwd=HOME, capture_output=True, text=True, timeout=SECONDS_MAX, check=True).stdout


def test_it_is_cyclonedx_of_this_version_and_the_same_again(written: str) -> None:
    found = json.loads(written)
    assert (found["bomFormat"], found["specVersion"], found["version"]) == ("CycloneDX", "1.6", 1)
    assert found["metadata"]["component"]["version"] == VERSION
    assert json.loads(written) == document(LOCK.read_text())
    references = [one["bom-ref"] for one in found["components"]]
    assert len(references) == len(set(references))


def test_it_has_every_package_of_the_lock_with_its_hashes(written: str) -> None:
    entries = re.sub(r"^ *#.*\n", "", LOCK.read_text(), flags=re.MULTILINE).replace("\\\n", " ").splitlines()
    expected = {}
    for entry in filter(None, map(str.strip, entries)):
        required, *hashes = entry.split("--hash=sha256:")
        requirement = Requirement(required)
        if requirement.marker is not None and not requirement.marker.evaluate():
            continue
        (pinned,) = requirement.specifier
        assert pinned.operator == "=="
        name = re.sub(r"[-_.]+", "-", requirement.name).lower()
        expected[f"pkg:pypi/{name}@{pinned.version}"] = sorted(map(str.strip, hashes))
    listed = {
        one["purl"]: sorted(each["content"] for each in one["hashes"] if each["alg"] == "SHA-256")
        for one in json.loads(written)["components"]
    }
    assert listed == expected
    assert all(expected.values())


def test_of_what_is_locked_for_several_pythons_only_what_this_one_installs_is_listed() -> None:
    digest = "ab" * 32
    lines = [
        "# a comment",
        f'Uvicorn_Worker[standard]==1.2.3 ; python_version >= "3" \\\n    --hash=sha256:{digest}\n    # via x',
        f"other==1 ; python_version < '3' \\\n    --hash=sha256:{digest}",
        f"other==2 ; python_version >= '3' \\\n    --hash=sha256:{digest} \\\n    --hash=sha256:{'cd' * 32}",
    ]
    one, other = document("\n".join(lines))["components"]
    assert (one["name"], one["version"], one["purl"]) == ("uvicorn-worker", "1.2.3", "pkg:pypi/uvicorn-worker@1.2.3")
    assert one["hashes"] == [{"alg": "SHA-256", "content": digest}]
    assert (other["name"], other["version"], len(other["hashes"])) == ("other", "2", 2)
