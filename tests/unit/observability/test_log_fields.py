"""A line has no field that deploy/LOGS.md does not explain."""

import ast
from collections.abc import Iterator
from pathlib import Path

from app.observability.log_fields import FIELDS, GENERATION, REQUEST
from app.streams.account import Account
from tests.support.server import AppServer

APP = Path(__file__).parents[3] / "app"
LEVELS = {"debug", "info", "warning", "error", "critical", "exception"}


# What a logger's name ends in, as a module's, as an object's own (`self._log`), or bound to more fields.
LOGGERS = ("log", "logger", "access")
# Fields that are put together elsewhere, by where they go into a line: each is looked at below.
MADE_ELSEWHERE = {("books.py", "account.fields()"), ("access_log.py", "fields"), ("sockets.py", "fields")}


def calls() -> Iterator[tuple[ast.Call, str]]:
    """Every call of a logger in the app, and the file that it is in."""
    for path in APP.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and node.func.attr in {*LEVELS, "bind"}
            ):
                name = ast.unparse(node.func.value).partition("(")[0].rpartition(".")[2]
                if name.strip("_").endswith(LOGGERS):
                    yield node, path.name


def logged_fields() -> Iterator[tuple[str, str]]:
    """Every field that such a call names, and where."""
    for node, file in calls():
        yield from ((word.arg, file) for word in node.keywords if word.arg)


def noted_fields() -> Iterator[tuple[str, str]]:
    """What inner layers leave for the line of the request, by whatever name they have `app.scope.note`."""
    for path in APP.rglob("*.py"):
        nodes = list(ast.walk(ast.parse(path.read_text())))
        names = {"note(scope)"}
        for node in nodes:
            if isinstance(node, ast.Assign) and ast.unparse(node.value) == "note(scope)":
                names |= {ast.unparse(target) for target in node.targets}
        for node in nodes:
            if isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Store) and ast.unparse(node.value) in names:
                yield ast.literal_eval(node.slice), path.name
            elif isinstance(node, ast.AugAssign) and ast.unparse(node.target) in names:
                assert isinstance(node.value, ast.Dict), f"{path}: {ast.unparse(node)}"
                yield from ((ast.literal_eval(key), path.name) for key in node.value.keys if key is not None)


def test_every_field_that_the_app_logs_is_explained() -> None:
    named = {*logged_fields(), *noted_fields()}
    assert {("outcome", "errors.py"), ("tokens", "delivery.py"), ("method", "access_log.py")} <= named
    assert {(field, file) for field, file in named if field not in FIELDS} == set()


def test_fields_that_come_in_a_dictionary_are_those_that_are_looked_at_here() -> None:
    passed = {
        (file, ast.unparse(word.value).partition(" |")[0])
        for node, file in calls()
        for word in node.keywords
        if not word.arg
    }
    assert passed == MADE_ELSEWHERE


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
