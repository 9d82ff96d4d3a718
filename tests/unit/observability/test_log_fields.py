"""A line has no field that deploy/LOGS.md does not explain."""

import ast
from collections.abc import Iterator
from pathlib import Path

from app.observability.log_fields import FIELDS, GENERATION, REQUEST
from app.streams.account import Account
from tests.support.server import AppServer

APP = Path(__file__).parents[3] / "app"
LEVELS = {"debug", "info", "warning", "error", "critical", "exception"}


def logged_fields() -> Iterator[tuple[str, str]]:
    """Every field that a call of a logger in the app names, and where."""
    for path in APP.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in LEVELS):
                continue
            if isinstance(node.func.value, ast.Name) and node.func.value.id == "log":
                yield from ((word.arg, path.name) for word in node.keywords if word.arg)


def test_every_field_that_the_app_logs_is_explained() -> None:
    unknown = {(field, file) for field, file in logged_fields() if field not in FIELDS}
    assert unknown == set()


def test_a_streams_line_has_the_fields_that_are_explained_as_its_own() -> None:
    account = Account("s", "m", "native", "p", "completed", "m/0", 1, 2, 3, 0.5, 0.1, 0.2, trace="t")
    assert account.fields().keys() <= FIELDS.keys()
    assert GENERATION.keys() <= account.fields().keys()


def test_the_lines_of_a_stream_and_of_its_resume_have_explained_fields_only(server: AppServer) -> None:
    body = {"prompt": "Say it.", "stream": True, "simulator": {"tokens": 3, "tokens_per_second": 0}}
    answer = server.post("/api/v1/generate", body, {"X-Request-ID": "fields-1"})
    line = server.wait_line(request_id="fields-1", event="request")
    server.get(f"/api/v1/streams/{line['stream_id']}", {"X-Request-ID": "fields-2"})
    resumed = server.wait_line(request_id="fields-2", event="request")
    generation = server.wait_line(stream=line["stream_id"], event="generation")
    for each in (line, resumed, generation):
        assert each.keys() <= FIELDS.keys()
    assert resumed["resumed"] is True
    assert "resumed" not in line
    assert answer is not None
    assert {"stream_id", "tokens", "ttft_ms"} <= line.keys() & REQUEST.keys()
