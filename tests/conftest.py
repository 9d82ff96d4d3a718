"""What holds for all tests."""

import os
import signal
from collections.abc import Iterator

import pytest

from tests.support.redis import RedisServer
from tests.support.upstream import ScriptedUpstream


def pytest_configure() -> None:
    """A shell has what it runs in the background ignore Ctrl-C, and so would whatever a test starts and interrupts."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="module")
def upstream() -> Iterator[ScriptedUpstream]:
    """An upstream of the module's own, which does what each model's script says."""
    with ScriptedUpstream() as running:
        yield running


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    """A Redis of the module's own."""
    with RedisServer() as running:
        yield running


@pytest.fixture
def turn(request: pytest.FixtureRequest) -> int:
    """Which try of the test this is, from 0: by it a test names a caller or a model that no earlier try has used up."""
    return int(getattr(request.node, "execution_count", 1)) - 1


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Where everything is installed, a test that is skipped is one that nobody runs any more."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is None:
        return
    skipped = reporter.stats.get("skipped", [])
    if skipped and os.environ.get("CI") and session.exitstatus == pytest.ExitCode.OK:
        reporter.write_line(f"\n{len(skipped)} skipped, which CI does not allow (pytest -rs says which)", red=True)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
