"""The places of a machine are its workers' together: one that has places of its own waits where others have too many.

That comes about when a worker dies: another one goes on with its streams beside its own, and the one that replaces it
begins with none.
"""

import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from tests.support import server
from tests.support.call import Call, ask
from tests.support.chain import Chain
from tests.support.surfaces import NATIVE
from tests.support.workers import active_streams, pid_behind, sockets, until, until_replaced

PLACES = 2
WAIT_SECONDS = 1.0


@pytest.fixture
def chain() -> Iterator[Chain]:
    env = {"SLUICE_STREAMS_MAX": str(PLACES), "SLUICE_ADMISSION_SECONDS": str(WAIT_SECONDS)}
    with Chain(env, workers=2) as running:
        yield running


def body(tokens: int, **more: Any) -> dict[str, Any]:
    return NATIVE.body("simulator", simulator={"tokens": tokens, "tokens_per_second": 20}) | more


def test_a_new_worker_begins_nothing_that_the_machine_has_no_place_for(chain: Chain) -> None:
    survivor, dying = sockets(chain)
    with ExitStack() as stack:
        for worker in (survivor, dying) * PLACES:
            call = stack.enter_context(Call(worker, NATIVE.path, body(2000, on_disconnect="finish"))).until(1)
            if worker is dying:
                # Read on the other worker, they go on there, and not where the next one begins.
                stack.enter_context(Call(survivor, f"/api/v1/streams/{call.headers['x-stream-id']}")).until(1)
        pid = pid_behind(dying)
        os.kill(pid, signal.SIGKILL)
        until_replaced(chain, {pid})
        until(lambda: active_streams(survivor) == 2 * PLACES, 20, "the other worker goes on with them")
        assert active_streams(dying) == 0
        refused = ask(dying, NATIVE.path, body(3))
        assert (refused.status, refused.json["error"]["code"]) == (503, "overloaded")
        assert refused.head_at - refused.started > 0.9 * WAIT_SECONDS, "it waits for a place, and is not behind"
        stopped = server.request(chain.port, "DELETE", f"/api/v1/streams/{call.headers['x-stream-id']}")
        assert stopped.status == 204
        assert ask(dying, NATIVE.path, body(3)).verdict == "complete"
        assert ask(dying, NATIVE.path, body(3)).verdict == "complete", "its place was given back"
