"""An application of a test's own under Uvicorn, with our protocols, in a thread."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn

from app.protocol import SluiceProtocol
from app.websocket import SluiceWebSocket
from tests.support.chain import free_port

START_SECONDS_MAX = STOP_SECONDS_MAX = 20.0


@contextmanager
def serving(app: Any, **settings: Any) -> Iterator[tuple[int, uvicorn.Server]]:
    """The port, and the server, which a test may ask to stop; `settings` are Uvicorn's."""
    port = free_port()
    own: dict[str, Any] = {"loop": "uvloop", "lifespan": "off", "http": SluiceProtocol, "ws": SluiceWebSocket}
    server = uvicorn.Server(uvicorn.Config(app, port=port, **own, **settings))
    thread = threading.Thread(target=server.run)
    thread.start()
    deadline = time.monotonic() + START_SECONDS_MAX
    while not server.started:
        assert time.monotonic() < deadline, "Uvicorn does not start"
        time.sleep(0.01)
    try:
        yield port, server
    finally:
        server.should_exit = server.force_exit = True
        thread.join(STOP_SECONDS_MAX)
        assert not thread.is_alive()
