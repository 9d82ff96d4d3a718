"""The image that holds nothing but the bill of materials: too long for `make test`, as everything is installed."""

import json
import re

import pytest

from tests.support.images import Images, missing
from tests.support.launched import HOME

pytestmark = [pytest.mark.soak, pytest.mark.timeout(900), pytest.mark.skipif(bool(missing()), reason=missing() or "-")]


def test_the_stage_is_one_file_with_all_that_the_lock_has_for_every_python() -> None:
    with Images() as images:
        images.build("sbom")
        root = images.root("sbom")
        assert [str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()] == ["sbom.cdx.json"]
        document = json.loads((root / "sbom.cdx.json").read_text())
    lock = (HOME / "requirements.lock").read_text()
    entries = re.findall(r"^([\w-]+)==(\S+) \\$", lock, re.MULTILINE)
    for_every_python = {f"{name}@{version}" for name, version in entries}
    assert len(for_every_python) > 20
    assert for_every_python <= {one["purl"].removeprefix("pkg:pypi/") for one in document["components"]}
