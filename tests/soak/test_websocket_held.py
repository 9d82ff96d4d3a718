"""A worker whose event loop is held for as long as it waits for a pong, by the waits that are shipped."""

import pytest

from app.timeouts import ledger
from tests.support.chain import Chain
from tests.support.held import outlast

pytestmark = [pytest.mark.soak, pytest.mark.timeout(180)]


def test_a_worker_that_was_held_for_25_seconds_takes_nobody_for_dead_whose_pong_lies_unread() -> None:
    held_seconds = ledger()["vanished_seconds"] + 0.5
    assert held_seconds < ledger()["watchdog_seconds"], "Gunicorn would replace it"
    with Chain(workers=1) as chain:
        outlast(chain, "/api/v1/ws/generate", held_seconds)
        assert "WORKER TIMEOUT" not in chain.log
