"""What the kubelet's probes hear, with the times that the manifest gives them: neither too little nor too much."""

import os
import signal
import threading
from collections.abc import Iterator
from time import monotonic

import pytest

from tests.support.call import Call, ask
from tests.support.chain import Chain
from tests.support.manifests import Manifest, container, overlay, sluice_pod
from tests.support.surfaces import NATIVE

# As long as a worst case that is no hang: a large body that is parsed, a page that is swapped in.
BLOCKED_SECONDS = 5.0
STALLED = 60
FAST = {"tokens": 3, "tokens_per_second": 0, "first_token_ms": 0}
LONG = {"tokens": 2000, "tokens_per_second": 20, "first_token_ms": 0}
STALL = {"tokens": 10, "fault": {"kind": "stall", "at_token": 2}}


@pytest.fixture
def chain() -> Iterator[Chain]:
    with Chain(workers=1) as running:
        yield running


def probe(kind: str) -> Manifest:
    found: Manifest = container(sluice_pod(overlay("production")), "app")[kind]
    return found


def passes(chain: Chain, kind: str) -> bool:
    """As the kubelet asks it, once."""
    began = monotonic()
    status = ask(chain.url, probe(kind)["httpGet"]["path"]).status
    return status == 200 and monotonic() - began < probe(kind)["timeoutSeconds"]


def test_a_loop_that_is_blocked_for_five_seconds_restarts_nothing_and_cuts_nothing(chain: Chain) -> None:
    (pid,) = chain.worker_pids()
    running = Call(chain.url, NATIVE.path, NATIVE.body("simulator", simulator=LONG))
    running.until(3)
    os.kill(pid, signal.SIGSTOP)
    again = threading.Timer(BLOCKED_SECONDS, os.kill, (pid, signal.SIGCONT))
    again.start()
    try:
        # It hears nothing for as long as the worker is blocked, which is shorter than it waits.
        assert passes(chain, "livenessProbe")
    finally:
        again.join()
    assert chain.worker_pids() == [pid]
    running.until(len(running.frames) + 20)
    assert not running.terminals
    running.leave()


def test_upstreams_that_are_silent_take_no_pod_from_its_service_and_no_place_from_others(chain: Chain) -> None:
    calls = [Call(chain.url, NATIVE.path, NATIVE.body("simulator", simulator=STALL)) for _ in range(STALLED)]
    try:
        for call in calls:
            call.until(1)
        assert passes(chain, "readinessProbe")
        assert passes(chain, "livenessProbe")
        # And it is true: whoever comes now is served.
        answer = ask(chain.url, NATIVE.path, NATIVE.body("simulator", simulator=FAST))
        assert answer.status == 200
        assert [frame.event for frame in answer.frames][-1] == "done"
    finally:
        for call in calls:
            call.leave()
