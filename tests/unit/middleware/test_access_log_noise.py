"""Clients that come again and again write no flood of lines; what matters always has its line."""

from time import monotonic, sleep
from typing import Any

import pytest
from starlette.types import Receive, Scope, Send
from structlog.testing import capture_logs

from app.middleware.access_log import AccessLogMiddleware
from app.observability.noise import BURST, PER_SECOND
from app.scope import note
from tests.support.server import AppServer
from tests.support.workers import until

TIMES = 1000
NAME = "noise-1"
# A slow machine may take some seconds for all of them.
LINES_MAX = BURST + 60


async def lines_of(status: int, **fields: Any) -> list[Any]:
    """What is logged of a thousand requests that all end the same."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        note(scope).update(fields)
        await send({"type": "http.response.start", "status": status})

    async def nothing(*_: Any) -> Any:
        return None

    middleware = AccessLogMiddleware(app)
    with capture_logs() as lines:
        for _ in range(TIMES):
            await middleware({"type": "http", "method": "GET", "path": "/x", "headers": []}, nothing, nothing)
    return lines


@pytest.mark.parametrize(("status", "resumed"), [(200, True), (204, True), (404, False), (429, False), (503, False)])
async def test_a_thousand_of_a_kind_are_a_bounded_number_of_lines(status: int, resumed: bool) -> None:
    lines = await lines_of(status, **({"stream_id": "s", "resumed": True} if resumed else {}))
    assert BURST <= len(lines) <= LINES_MAX


@pytest.mark.parametrize(("status", "begun"), [(200, True), (500, False), (502, True)])
async def test_each_stream_and_each_failure_has_its_line(status: int, begun: bool) -> None:
    assert len(await lines_of(status, **({"stream_id": "s"} if begun else {}))) == TIMES


def test_a_thousand_clients_that_really_reconnect_are_a_bounded_number_of_lines(server: AppServer) -> None:
    """Each by a connection of its own, for the rest of a stream; the lines say how many there were in all."""
    simulator = {"tokens": 3, "tokens_per_second": 0, "first_token_ms": 0}
    server.post(
        "/api/v1/generate", {"prompt": "Say it.", "stream": True, "simulator": simulator}, {"X-Request-ID": NAME}
    )
    stream_id = server.wait_line(request_id=NAME, event="request")["stream_id"]
    began = monotonic()
    for _ in range(TIMES):
        assert server.get(f"/api/v1/streams/{stream_id}").status == 200
    seconds = monotonic() - began
    sleep(2 / PER_SECOND)  # so that one more is written, and says of how many there is no line
    server.get(f"/api/v1/streams/{stream_id}")
    path = f"/api/v1/streams/{stream_id}"

    def told() -> int:
        return sum(1 + line.get("unlogged", 0) for line in server.lines(path=path))

    until(lambda: told() > TIMES, 10, "a line of the last one")
    assert told() == TIMES + 1
    written = server.lines(path=path)
    assert BURST <= len(written) <= BURST + PER_SECOND * (seconds + 5)
    # Nothing else says a word of each.
    assert len([line for line in server.lines() if stream_id in str(line)]) <= len(written) + 2
