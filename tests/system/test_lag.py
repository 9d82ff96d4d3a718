"""A worker whose event loop is behind takes nothing new and keeps what it has: the second guard of admission.

The loop is held up as a busy machine does it: the worker gets the processor for a moment at a time.
"""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from time import sleep

import pytest

from app.admission.places import RETRY_AFTER_SECONDS
from app.admission.pulse import LAG_SECONDS_MAX, PERIOD_SECONDS, SAMPLES
from tests.support.call import Call, ask
from tests.support.chain import Chain
from tests.support.scrape import scrape_until
from tests.support.surfaces import NATIVE, OPENAI, SURFACES, Surface
from tests.support.workers import until

# A look at the clock falls due while the worker rests, whenever it began to wait, and is then this late at least.
RUNS_SECONDS, RESTS_SECONDS = PERIOD_SECONDS / 5, PERIOD_SECONDS + 2 * LAG_SECONDS_MAX
SHED = "sluice_admission_shed_total"
FAST = {"tokens": 3, "tokens_per_second": 0, "first_token_ms": 0}
LONG = {"tokens": 2000, "tokens_per_second": 20, "first_token_ms": 0}


@pytest.fixture(scope="module")
def chain() -> Iterator[Chain]:
    with Chain(workers=1) as running:
        yield running


@contextmanager
def held_up(pid: int) -> Iterator[None]:
    """The process runs for a moment at a time."""
    over = threading.Event()

    def hold() -> None:
        while not over.is_set():
            os.kill(pid, signal.SIGSTOP)
            over.wait(RESTS_SECONDS)
            os.kill(pid, signal.SIGCONT)
            sleep(RUNS_SECONDS)

    thread = threading.Thread(target=hold, name="hold-up")
    thread.start()
    try:
        sleep((SAMPLES + 2) * (RUNS_SECONDS + RESTS_SECONDS))
        yield
    finally:
        over.set()
        thread.join()
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


def new(chain: Chain, surface: Surface) -> Call:
    return ask(chain.url, surface.path, surface.body("simulator", simulator=FAST))


def test_a_worker_that_is_behind_sheds_what_is_new_and_nothing_else(chain: Chain) -> None:
    running = Call(chain.url, NATIVE.path, NATIVE.body("simulator", simulator=LONG))
    stream_id, last = running.until(3).headers["x-stream-id"], running.frames[-1].id
    with held_up(chain.worker_pids()[0]):
        for surface in SURFACES:
            refused = new(chain, surface)
            assert refused.status == 503, bytes(refused.body)
            assert surface.error(refused)["code"] == "overloaded"
            low, high = RETRY_AFTER_SECONDS
            assert low <= int(refused.headers["retry-after"]) <= high
            assert "x-stream-id" not in refused.headers, "nothing was begun"
        for probe in ("/livez", "/readyz", "/health", f"/api/v1/streams/{stream_id}/status"):
            assert ask(chain.url, probe).status == 200, probe
        with Call(chain.url, f"/api/v1/streams/{stream_id}", headers={"Last-Event-ID": last}) as resumed:
            assert resumed.until(5).status == 200
        # Late, but it goes on.
        running.until(len(running.frames) + 5)
    until(lambda: new(chain, OPENAI).status == 200, 20, "what is new is let in again")
    assert not running.terminals
    running.leave()
    shed = scrape_until(chain.metrics_url, lambda found: found.value(SHED, cause="lag") >= len(SURFACES))
    assert shed.value(SHED) == shed.value(SHED, cause="lag")
