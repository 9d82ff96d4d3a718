"""What a caller may see of an upstream's error."""

import json
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from multidict import CIMultiDict

from app.providers.rejection import MESSAGE_CHARS_MAX, Rejections, retry_after_seconds

KEY = "canary-key-0123456789"
HOST = "canary-host.example:8443"
REJECTIONS = Rejections(HOST, KEY)


def body(message: object, **fields: object) -> bytes:
    return json.dumps({"error": {"message": message, **fields}}).encode()


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (body("too long a prompt"), "too long a prompt"),
        (b'{"error": "too long"}', "too long"),
        (b'{"message": "too long", "object": "error"}', "too long"),
        (b'{"detail": "too long"}', "too long"),
        (b'{"detail": [{"loc": ["body"]}]}', "The upstream answered with status 400."),
        (b"<html>Bad Request</html>", "The upstream answered with status 400."),
        (b"", "The upstream answered with status 400."),
        (b"\xff\xfe", "The upstream answered with status 400."),
        (b"[1, 2]", "The upstream answered with status 400."),
        (b'{"error": {"message": ["a"]}}', "The upstream answered with status 400."),
        (body("line\nand\ttab\x00 \u202e x"), "line and tab x"),
    ],
)
def test_the_message_is_found_wherever_upstreams_put_it(raw: bytes, message: str) -> None:
    error = REJECTIONS.of_answer(400, {}, raw)
    assert (error.status, error.message) == (400, message)


@pytest.mark.parametrize(
    "leak",
    [
        f"Incorrect API key provided: {KEY}.",
        "Incorrect API key provided: sk-proj-abc***xyz.",
        "header Authorization: Bearer abcdef123456 is wrong",
        f"no route to {HOST}",
        "no route to CANARY-HOST.example",
        "see https://canary-host.example/v1/docs?key=1 for help",
        "dial tcp 10.1.2.3:8000: connection refused",
        "connect to [fd00::1]:8000 failed",
        "vllm-0.vllm.models.svc.cluster.local:8000 is down",
    ],
)
def test_hosts_addresses_and_keys_are_hidden(leak: str) -> None:
    message = REJECTIONS.of_answer(400, {}, body(leak)).message
    assert "[hidden]" in message
    for canary in (KEY, "canary-host", "CANARY-HOST", "sk-proj", "abcdef123456", "10.1.2.3", "fd00", "vllm-0"):
        assert canary not in message


@pytest.mark.parametrize(
    "trace",
    [
        'Traceback (most recent call last):\n  File "/srv/engine.py", line 3, in run',
        'boom in File "/srv/engine.py", line 3',
        "TypeError: x\n    at Server.handle (/srv/node/server.js:10:5)\n    at run(/srv/a.js:3)",
    ],
)
def test_tracebacks_are_replaced(trace: str) -> None:
    assert REJECTIONS.of_answer(500, {}, body(trace)).message == "The upstream answered with status 500."


def test_what_the_upstream_says_of_our_account_stays_here() -> None:
    for status in (401, 403):
        error = REJECTIONS.of_answer(status, {}, body("Project proj_canary has no access"))
        assert "canary" not in error.message
        assert "proj_canary" in error.detail


def test_the_log_gets_everything_but_the_key() -> None:
    detail = REJECTIONS.of_answer(400, {}, body(f"{KEY} at {HOST}")).detail
    assert HOST in detail
    assert KEY not in detail


def test_a_long_message_is_cut() -> None:
    message = REJECTIONS.of_answer(400, {}, body("word " * 100_000)).message
    assert len(message) <= MESSAGE_CHARS_MAX


@pytest.mark.parametrize(
    ("error", "status"),
    [
        ({"code": 429}, 429),
        ({"code": "429"}, 429),
        ({"status": 503, "code": "overloaded"}, 503),
        ({"status_code": 400}, 400),
        ({"type": "invalid_request_error"}, 400),
        ({"type": "overloaded_error"}, 503),
        ({"code": "rate_limit_exceeded"}, 502),
        ({"code": 200}, 502),
        ({"code": 1200}, 502),
        ({"code": "²²²"}, 502),
        ({"code": True}, 502),
        ({}, 502),
    ],
)
def test_an_error_in_band_has_its_own_status_if_that_is_one(error: dict[str, object], status: int) -> None:
    assert REJECTIONS.of_event(json.dumps({"error": {"message": "x", **error}}).encode()).status == status


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"Retry-After": "3"}, 3),
        ({"Retry-After": "0"}, 0),
        ({"Retry-After": "1.2"}, 2),
        ({"Retry-After": "99999"}, 120),
        ({"Retry-After": "-4"}, None),
        ({"Retry-After": "soon"}, None),
        ({"Retry-After": "nan"}, None),
        ({"Retry-After": "²"}, None),
        ({"retry-after-ms": "1500", "Retry-After": "9"}, 2),
        ({"retry-after-ms": "inf"}, 120),
        ({"retry-after-ms": "nan"}, None),
        ({"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}, 0),
    ],
)
def test_when_to_ask_again_is_taken_over_within_bounds(headers: dict[str, str], seconds: int | None) -> None:
    assert retry_after_seconds(CIMultiDict(headers)) == seconds


def test_a_date_to_ask_again_becomes_seconds() -> None:
    when = format_datetime(datetime.now(UTC) + timedelta(seconds=30), usegmt=True)
    assert retry_after_seconds(CIMultiDict({"Retry-After": when})) in {29, 30}


@pytest.mark.parametrize(
    ("status", "fields", "code"),
    [
        (400, {"code": "context_length_exceeded"}, "context_length_exceeded"),
        (500, {"type": "exceed_context_size_error"}, "context_length_exceeded"),
        (400, {"message": "This model's maximum context length is 4096 tokens."}, "context_length_exceeded"),
        (400, {"type": "invalid_request_error", "message": "prompt is too long: 2 > 1"}, "context_length_exceeded"),
        (400, {"code": "content_filter"}, "content_filter"),
        (400, {"code": 400, "innererror": {"code": "ResponsibleAIPolicyViolation"}}, "content_filter"),
        (403, {"code": "content_policy_violation"}, "content_filter"),
        (429, {"message": "tokens a minute exceed the context"}, "upstream_rate_limited"),
        (400, {"code": "bad"}, "upstream_rejected"),
    ],
)
def test_a_refusal_of_the_request_itself_has_a_code_of_its_own(
    status: int, fields: dict[str, object], code: str
) -> None:
    """And a status of the caller's making, also inside a stream, where nothing but its name says so."""
    raw = json.dumps({"error": {"message": "No.", **fields}}).encode()
    answered = REJECTIONS.of_answer(status, {}, raw)
    assert answered.code == code
    assert 400 <= answered.status < 500
    if code in {"context_length_exceeded", "content_filter"} and "code" not in fields:
        assert REJECTIONS.of_event(raw).code == code
        assert not REJECTIONS.of_event(raw).as_event().retryable
