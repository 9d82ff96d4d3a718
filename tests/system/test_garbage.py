"""What a request used is freed by its last reference: a collector that has to look for it holds all streams meanwhile,
and until it does the memory is not there."""

from collections.abc import Iterator

import pytest

from tests.support.call import Call, ask
from tests.support.garbage import LOOK, left_by
from tests.support.gunicorn import Gunicorn
from tests.support.models import Models
from tests.support.surfaces import NATIVE, OPENAI, SURFACES, Surface
from tests.support.upstream import ScriptedUpstream
from tests.support.upstream_script import Script


@pytest.fixture(scope="module", params=["lmdb", "memory"])
def server(request: pytest.FixtureRequest, models: Models) -> Iterator[Gunicorn]:
    log = {"SLUICE_STREAM_LOG": "memory://"} if request.param == "memory" else {}
    with Gunicorn({"SLUICE_CONFIG": str(models.path), **log}, poke=LOOK) as running:
        yield running


@pytest.fixture
def model(models: Models, upstream: ScriptedUpstream) -> str:
    name = models.unused()
    upstream.script(name, Script(tokens=5, delay_seconds=0.02))
    return name


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "batch"])
@pytest.mark.parametrize("surface", SURFACES, ids=lambda surface: surface.name)
def test_an_answer_leaves_nothing(server: Gunicorn, model: str, surface: Surface, stream: bool) -> None:
    def request() -> None:
        assert ask(server.url, surface.path, surface.body(model, stream=stream)).verdict == "complete"

    assert left_by(server, request) == {}


def test_a_reader_who_comes_back_leaves_nothing(server: Gunicorn, model: str) -> None:
    def request() -> None:
        with Call(server.url, NATIVE.path, NATIVE.body(model) | {"on_disconnect": "grace"}) as call:
            stream_id = call.until(2).headers["x-stream-id"]
        again = ask(server.url, f"/api/v1/streams/{stream_id}", last_event_id=call.frames[1].id)
        assert again.verdict == "complete"

    assert left_by(server, request) == {}


def test_a_client_who_leaves_leaves_nothing(server: Gunicorn, model: str, upstream: ScriptedUpstream) -> None:
    upstream.script(model, Script(tokens=500, delay_seconds=0.02))

    def request() -> None:
        with Call(server.url, OPENAI.path, OPENAI.body(model)) as call:
            call.until(2)

    assert left_by(server, request) == {}


def test_a_failure_of_the_upstream_leaves_nothing(server: Gunicorn, model: str, upstream: ScriptedUpstream) -> None:
    upstream.script(model, Script(tokens=5, die_after=3))

    def request() -> None:
        assert ask(server.url, OPENAI.path, OPENAI.body(model)).verdict == "error"

    assert left_by(server, request) == {}
