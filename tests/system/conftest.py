"""What system tests share."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.browser import Browser


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Browser]:
    """A Chromium of the test's own; the test is skipped where there is none."""
    with Browser(tmp_path / "chromium") as running:
        yield running
