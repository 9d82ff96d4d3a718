"""Clients that come again and again write no flood of lines; what matters always has its line."""

from typing import Any

import pytest
from starlette.types import Receive, Scope, Send
from structlog.testing import capture_logs

from app.middleware.access_log import AccessLogMiddleware
from app.observability.noise import BURST
from app.scope import note

TIMES = 1000
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
