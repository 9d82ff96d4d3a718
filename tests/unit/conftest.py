"""One server for all unit tests that need HTTP; each test tells its own requests apart."""

from collections.abc import Iterator

import pytest

from tests.support.server import AppServer


@pytest.fixture(scope="session")
def server() -> Iterator[AppServer]:
    with AppServer() as server:
        yield server
