"""The image that holds nothing but the bill of materials, built: too long for `make test`, as it installs everything."""

import json

import pytest

from scripts import sbom
from tests.support.images import Images, missing
from tests.support.launched import HOME

pytestmark = [pytest.mark.soak, pytest.mark.timeout(900), pytest.mark.skipif(bool(missing()), reason=missing() or "-")]


def test_the_stage_is_one_file_which_is_what_the_lock_amounts_to() -> None:
    with Images() as images:
        images.build("sbom")
        root = images.root("sbom")
        assert [str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()] == ["sbom.cdx.json"]
        document = json.loads((root / "sbom.cdx.json").read_text())
    assert document == sbom.document((HOME / "requirements.lock").read_text())
