"""Secrets do not come out, whoever logs them and in whatever words."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.observability.logging import _encoded, _render
from app.observability.redaction import HIDDEN, redact

JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJ4In0.c2lnbmF0dXJl"


def written(fields: dict[str, Any]) -> str:
    """A line of these fields."""
    return _render(None, "info", dict(fields)).decode()


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
        ("GET /v1beta/models?key=AIza-0123456789 failed", "AIza-0123456789"),
        ("GET /models?v=1&api_key=hunter2secret failed", "hunter2secret"),
        ("Traceback …\nKeyError: 'sk-live-0123456789'", "sk-live-0123456789"),
    ],
)
def test_a_secret_is_known_by_its_shape(text: str, secret: str) -> None:
    line = written({"event": text, "detail": text})
    assert secret not in line
    assert line.count(HIDDEN) == 2


SECRETS = ["sk-abcdefgh", "Bearer abcdefgh", "bearer abcdefgh", "eyJabcdefgh.e.", "://user:secret@", "://:secret@"]
SECRETS += ["?ticket=secret", "&key=secret", "?api_key=secret"]
# Few at a time: where a line has one secret that is seen, all of it is looked at.
PIECES = st.sampled_from([*SECRETS, HIDDEN, "sk-", "earer ", "eyJ", "://", "@", "key=", *".:?&/-' \\\"\n\ud800é"])
TEXTS = st.lists(PIECES, min_size=1, max_size=3).map("".join)
VALUES = TEXTS | st.integers() | st.none() | st.lists(TEXTS, max_size=2)
FIELDS = st.dictionaries(
    st.sampled_from(("event", "detail", "url", "password", "ticket")), VALUES, min_size=1, max_size=2
)


@given(FIELDS)
def test_a_line_hides_what_each_of_its_values_has_to_hide_though_most_are_not_looked_into(
    fields: dict[str, Any],
) -> None:
    assert written(fields) == _encoded(redact(dict(fields))).decode()


@pytest.mark.parametrize("name", ["password", "authorization", "api_key", "ticket"])
def test_a_secret_is_known_by_its_name(name: str) -> None:
    assert written({"event": "x", name: "short"}) == f'{{"event":"x","{name}":"{HIDDEN}"}}'


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
    assert json.loads(written(fields)) == fields
