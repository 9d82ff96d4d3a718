"""What system tests share."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.browser import Browser
from tests.support.models import Models
from tests.support.upstream import ScriptedUpstream


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory, upstream: ScriptedUpstream) -> Models:
    """A models file in which every model is that upstream's."""
    return Models(tmp_path_factory.mktemp("models"), upstream)


@pytest.fixture
def model(models: Models) -> str:
    """A model that no other test has asked for."""
    return models.unused()


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Browser]:
    """A Chromium of the test's own; the test is skipped where there is none."""
    with Browser(tmp_path / "chromium") as running:
        yield running
