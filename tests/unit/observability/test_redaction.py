"""Secrets do not come out, whoever logs them and in whatever words."""

import pytest

from app.observability.redaction import HIDDEN, redact

JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJ4In0.c2lnbmF0dXJl"


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        ("refused: Authorization: Bearer abcdefghijkl", "abcdefghijkl"),
        ("key sk-sluice-AAAABBBBCCCC is old", "sk-sluice-AAAABBBBCCCC"),
        ("sk-proj-1234567890", "sk-proj-1234567890"),
        (f"token {JWT}", JWT),
        ("cannot reach redis://:hunter2secret@cache:6379/0", "hunter2secret"),
        ("cannot reach https://user:hunter2secret@host/v1", "hunter2secret"),
        ("GET /api/v1/stream?prompt=x&ticket=tick-et-123 failed", "tick-et-123"),
        ("Traceback …\nKeyError: 'sk-live-0123456789'", "sk-live-0123456789"),
    ],
)
def test_a_secret_is_known_by_its_shape(text: str, secret: str) -> None:
    line = redact(None, "info", {"event": text, "detail": text})
    assert secret not in str(line)
    assert HIDDEN in str(line["event"])


@pytest.mark.parametrize("name", ["password", "authorization", "api_key", "ticket"])
def test_a_secret_is_known_by_its_name(name: str) -> None:
    assert redact(None, "info", {"event": "x", name: "short"})[name] == HIDDEN


@pytest.mark.parametrize(
    "text",
    [
        "request",
        "KF3gUrKFVOApZkup8gK_xnP-",
        "/api/v1/streams/x",
        "http://127.0.0.1:8080/v1",
        "a task-like risk-averse word",
    ],
)
def test_everything_else_stays_as_it_is(text: str) -> None:
    fields = {"event": text, "tokens": 7, "cause": None}
    assert redact(None, "info", dict(fields)) == fields
