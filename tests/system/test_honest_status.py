"""The client is told how an answer ended: a failure is a status while it can be one, then an event, never a clean end.

Every answer of this file is also searched for what an upstream must not have told: its address and our key for it.
"""

import json
import os
import signal
import subprocess
from collections.abc import Iterator

import pytest

from tests.support.call import Call, ask
from tests.support.chain import Chain, free_port
from tests.support.models import Models
from tests.support.surfaces import NATIVE, OPENAI, SURFACES, Surface
from tests.support.upstream import ScriptedUpstream
from tests.support.upstream_script import Script
from tests.support.workers import until_replaced

HEARTBEAT_SECONDS = 1.0
# Before and after the first heartbeat.
AT_ONCE, LATE = 0.0, HEARTBEAT_SECONDS + 0.7
KEY = "sk-canary-0123456789abcdef"
HOST = "canary.upstream.internal"
ERROR = f"no model at http://{HOST}:9100/v1 for key {KEY}"
CURL_PARTIAL = 18
CURL_SECONDS_MAX = 20

every_surface = pytest.mark.parametrize("surface", SURFACES, ids=lambda surface: surface.name)
every_mode = pytest.mark.parametrize("stream", [True, False], ids=["stream", "batch"])


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory, upstream: ScriptedUpstream) -> Models:
    found = Models(
        tmp_path_factory.mktemp("honest"), upstream, api_key_env="ORIGIN_KEY", first_token_seconds=10, idle_seconds=10
    )
    found.add("refuses", base_url=f"http://127.0.0.1:{free_port()}/v1")
    found.add("late", first_token_seconds=HEARTBEAT_SECONDS / 2)
    found.add("stalls", idle_seconds=0.5)
    return found


@pytest.fixture(scope="module")
def chain(models: Models) -> Iterator[Chain]:
    """One worker, so that a test knows whom to kill."""
    env = {
        "SLUICE_CONFIG": str(models.path),
        "SLUICE_HEARTBEAT_SECONDS": str(HEARTBEAT_SECONDS),
        "SLUICE_DRAIN_SECONDS": "1",
        "SLUICE_DRAIN_SPREAD_SECONDS": "0.2",
        "ORIGIN_KEY": KEY,
    }
    with Chain(env, workers=1) as running:
        yield running


def told_nothing(call: Call, upstream: ScriptedUpstream) -> None:
    """Neither where the upstream is nor with which key it is asked."""
    said = str(call.headers) + call.body.decode()
    for canary in (KEY, KEY[:12], HOST, f"127.0.0.1:{upstream.port}", f":{upstream.port}", "Traceback"):
        assert canary not in said


def asked(chain: Chain, upstream: ScriptedUpstream, surface: Surface, model: str, *, stream: bool = True) -> Call:
    """A call that was read to its end, and gave nothing away."""
    call = ask(chain.url, surface.path, surface.body(model, stream=stream))
    told_nothing(call, upstream)
    return call


def is_error(call: Call, surface: Surface, status: int, code: str) -> None:
    """The answer is that status, in the surface's shape."""
    assert call.status == status, bytes(call.body)
    error = surface.error(call)
    assert error["code"] == code
    assert error["message"]
    assert error["request_id"] == call.headers["x-request-id"]
    assert ("type" in error) is (surface is OPENAI)
    assert ("retryable" in error) is (surface is NATIVE)


@every_mode
@every_surface
@pytest.mark.parametrize(
    ("script", "code"),
    [
        (Script(status=401, body=json.dumps({"error": {"message": ERROR}})), "upstream_unauthorized"),
        (Script(status=429, headers={"Retry-After": "7"}), "upstream_rate_limited"),
        (Script(status=500, body=json.dumps({"error": {"message": ERROR}})), "upstream_error"),
    ],
    ids=lambda value: value.status if isinstance(value, Script) else "",
)
def test_a_refusal_before_the_first_token_is_the_upstream_s_own_status(
    script: Script, code: str, surface: Surface, stream: bool, chain: Chain, upstream: ScriptedUpstream, model: str
) -> None:
    upstream.script(model, script)
    call = asked(chain, upstream, surface, model, stream=stream)
    is_error(call, surface, script.status, code)
    assert call.headers.get("retry-after") == script.headers.get("Retry-After")
    assert len(upstream.requests(model)) == 1
    assert upstream.requests(model)[0].headers["authorization"] == f"Bearer {KEY}"


@every_mode
@every_surface
def test_an_upstream_that_cannot_be_reached_is_502(
    surface: Surface, stream: bool, chain: Chain, upstream: ScriptedUpstream
) -> None:
    is_error(asked(chain, upstream, surface, "refuses", stream=stream), surface, 502, "upstream_unreachable")


@every_mode
@every_surface
def test_no_token_in_time_is_504(surface: Surface, stream: bool, chain: Chain, upstream: ScriptedUpstream) -> None:
    upstream.script("late", first_delay_seconds=10)
    is_error(asked(chain, upstream, surface, "late", stream=stream), surface, 504, "upstream_timeout")


@every_surface
@pytest.mark.parametrize(
    ("script", "status"),
    [
        (Script(first_frame='data: {"error":{"message":"full","type":"server_error","code":529}}\n\n'), 529),
        (Script(first_frame='event: error\ndata: {"message":"full"}\n\n'), 502),
        (Script(role_chunk=True, error_at=0), 500),
        (Script(plain_json=True, body='{"error":{"message":"full","code":503}}'), 503),
        (Script(html=True), 502),
        (Script(die_after=0, how="fin"), 502),
        (Script(die_after=0, how="rst"), 502),
        (Script(die_after=0), 502),
        (Script(response_hex=""), 502),
    ],
    ids=["frame", "event", "behind the role", "JSON under 200", "HTML", "FIN", "RST", "no zero chunk", "no answer"],
)
def test_a_failure_under_status_200_is_a_status_before_the_first_token(
    script: Script, status: int, surface: Surface, chain: Chain, upstream: ScriptedUpstream, model: str
) -> None:
    upstream.script(model, script)
    call = asked(chain, upstream, surface, model)
    assert call.status == status, bytes(call.body)
    assert surface.error(call)["message"]


@every_surface
@pytest.mark.parametrize(
    "script",
    [
        Script(headers_delay_seconds=LATE, status=429, headers={"Retry-After": "7"}),
        Script(headers_delay_seconds=LATE, status=500, body=json.dumps({"error": {"message": ERROR}})),
        Script(first_delay_seconds=LATE, error_at=0),
        Script(first_delay_seconds=LATE, die_after=0),
    ],
    ids=["429", "500", "error frame", "cut"],
)
def test_a_failure_after_the_first_heartbeat_is_one_error_event(
    script: Script, surface: Surface, chain: Chain, upstream: ScriptedUpstream, model: str
) -> None:
    upstream.script(model, script)
    call = asked(chain, upstream, surface, model)
    assert call.status == 200
    assert call.heartbeat_times
    assert call.verdict == "error"
    assert len(call.frames) == 1
    error = surface.error(call)
    assert error["code"]
    if surface is NATIVE and script.status == 429:
        assert (error["status"], error["retry_after_seconds"]) == (429, 7)


@every_surface
@pytest.mark.parametrize(
    ("script", "code"),
    [
        (Script(error_at=3), "upstream_error"),
        (Script(die_after=3, how="fin"), "upstream_truncated"),
        (Script(die_after=3, how="rst"), "upstream_truncated"),
        (Script(die_after=3), "upstream_truncated"),
    ],
    ids=["error frame", "FIN", "RST", "no zero chunk"],
)
def test_a_failure_between_tokens_is_one_error_event(
    script: Script, code: str, surface: Surface, chain: Chain, upstream: ScriptedUpstream, model: str
) -> None:
    upstream.script(model, script)
    call = asked(chain, upstream, surface, model)
    assert (call.status, call.end, call.verdict) == (200, "whole", "error")
    assert call.text == "tok0 tok1 tok2 "
    assert surface.error(call)["code"] == code
    assert b"[DONE]" not in call.body


@every_surface
def test_an_upstream_that_stalls_between_tokens_is_one_error_event(
    surface: Surface, chain: Chain, upstream: ScriptedUpstream
) -> None:
    """Bytes that are no token do not keep it alive."""
    upstream.script("stalls", stall_after=3, trickle=": still here\n\n")
    call = asked(chain, upstream, surface, "stalls")
    assert call.verdict == "error"
    assert surface.error(call)["code"] == "upstream_stalled"


@every_surface
@pytest.mark.parametrize(
    "script", [Script(error_at=3), Script(die_after=3), Script(die_after=3, how="fin")], ids=["error", "cut", "FIN"]
)
def test_half_an_answer_is_no_batch_answer(
    script: Script, surface: Surface, chain: Chain, upstream: ScriptedUpstream, model: str
) -> None:
    upstream.script(model, script)
    call = asked(chain, upstream, surface, model, stream=False)
    assert call.status in (500, 502)
    assert "tok0" not in call.body.decode()


@every_surface
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGABRT, signal.SIGTERM], ids=lambda number: number.name)
def test_a_worker_that_ends_mid_stream_leaves_no_clean_end(
    number: signal.Signals, surface: Surface, chain: Chain, upstream: ScriptedUpstream, model: str
) -> None:
    upstream.script(model, tokens=600, delay_seconds=0.05)
    workers = set(chain.worker_pids())
    with Call(chain.url, surface.path, surface.body(model)) as call:
        call.until(4)
        for pid in workers:
            os.kill(pid, number)
        call.finish()
    until_replaced(chain, workers)
    told_nothing(call, upstream)
    assert call.verdict in ("incomplete", "error")
    assert b"[DONE]" not in call.body
    assert b"HTTP/1.1" not in call.body
    if number is not signal.SIGTERM:
        assert call.end == "cut"
    elif surface is OPENAI:
        # The SDK knows no other way to be told that this was not all.
        assert OPENAI.error(call)["code"] == "server_shutting_down"
    else:
        assert call.frames[-1].event == "reconnect"


@every_surface
def test_curl_sees_that_a_worker_died(surface: Surface, chain: Chain, upstream: ScriptedUpstream, model: str) -> None:
    upstream.script(model, tokens=600, delay_seconds=0.05)
    workers = set(chain.worker_pids())
    command = ["curl", "-sN", chain.url + surface.path, "-H", "Content-Type: application/json"]
    with subprocess.Popen([*command, "-d", json.dumps(surface.body(model))], stdout=subprocess.PIPE) as curl:
        upstream.wait_tokens(model, 3)
        for pid in workers:
            os.kill(pid, signal.SIGKILL)
        said, _ = curl.communicate(timeout=CURL_SECONDS_MAX)
    until_replaced(chain, workers)
    assert curl.returncode == CURL_PARTIAL
    assert b"tok0" in said
