"""The worker that Gunicorn runs: Uvicorn's, with its own socket, a bounded drain, and a heartbeat that outlasts it.

What the stock `UvicornWorker` does otherwise, and why that cuts streams:
- it never bounds the drain, so that Gunicorn ends it with SIGKILL and nothing is cleaned up;
- it stops its heartbeat when the drain begins, so that Gunicorn's watchdog aborts it half-way;
- its heartbeat follows the wall clock, so that a step back in time looks like a hang;
- Uvicorn raises SIGTERM again at the end, past `atexit` and Gunicorn's `worker_exit`.
"""

import asyncio
import contextlib
import faulthandler
import queue
import resource
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from time import monotonic
from typing import Any

import structlog
from gunicorn.arbiter import Arbiter
from uvicorn import Server
from uvicorn_worker import UvicornWorker

from app import garbage
from app.observability import places, tracing
from app.observability.figure_files import FigureFiles
from app.observability.logging import adopt_stdlib_logger
from app.pod import Identity, Pod
from app.protocol import SluiceProtocol
from app.slots import Slots, SlotSocket
from app.timeouts import ledger
from app.websocket import SluiceWebSocket

log = structlog.get_logger(__name__)

HEARTBEAT_SECONDS = 1.0
# How long connections that rest stay open in a worker that stops: in use, they are told that their answer was the last,
# and NGINX uses them no more; a request that meets one which is just being closed gets no answer.
LINGER_SECONDS = 1.0
ACCEPT_SECONDS = 0.1
# See deploy/timeouts.yaml for these.
SUCCESSOR_SECONDS = ledger()["successor_seconds"]
FAREWELL_SECONDS = ledger()["farewell_seconds"]
CANCEL_SECONDS = ledger()["cancel_seconds"]
HEARTBEAT_INTERVAL_SECONDS = ledger()["heartbeat_seconds"]
VANISHED_SECONDS = ledger()["vanished_seconds"]


class DrainServer(Server):
    """A Uvicorn server whose drain has bounded steps: let streams finish or move, let go of them, cancel what is left.

    Args:
        app: its `state.drain` hands readers and generations over.
        drain_seconds: how long streams may go on.
    """

    def __init__(self, config: Any, app: Any, drain_seconds: float) -> None:
        super().__init__(config)
        self._app = app
        self._drain_seconds = drain_seconds

    async def _wait_tasks_to_complete(self) -> None:
        drain = self._app.state.drain
        drain.begin()
        if not await self._idle_within(
            self._drain_seconds, lambda: drain.idle, lambda: self.force_exit, LINGER_SECONDS
        ):
            # First, since nothing that came on them could be served any more.
            self._close_resting()
            # Also in a hurry: nobody else would take the streams over before the lease is over.
            await drain.finish()
            self._close_resting()
            await self._idle_within(FAREWELL_SECONDS, lambda: True, lambda: False)
        if left := set(self.server_state.tasks):
            log.warning("cancelling what is left", tasks=len(left))
            for task in left:
                task.cancel()
            # Uvicorn would go on without waiting, and stop the lifespan while these still clean up.
            await asyncio.wait(left, timeout=CANCEL_SECONDS)
        for connection in list(self.server_state.connections):
            connection.transport.abort()
        # It has cut the waiting short. Uvicorn would now leave out the end of the lifespan, which is bounded as well.
        self.force_exit = False

    def _close_resting(self) -> None:
        for connection in list(self.server_state.connections):
            if isinstance(connection, SluiceProtocol) and connection.resting:
                connection.transport.close()

    async def _idle_within(
        self, seconds: float, idle: Callable[[], bool], hurry: Callable[[], bool], linger_seconds: float = 0.0
    ) -> bool:
        """Until nothing is done here, and has not been for `linger_seconds` if a connection is left."""
        now = monotonic()
        deadline, idle_since = now + seconds, now
        while True:
            if self.server_state.tasks or not idle():
                idle_since = now
            elif not self.server_state.connections or now - idle_since >= linger_seconds:
                return True
            if now >= deadline or hurry():
                return False
            await asyncio.sleep(0.05)
            now = monotonic()


class SluiceWorker(UvicornWorker):  # type: ignore[misc]
    """See the module. What is not set here is set by gunicorn.conf.py, before the fork."""

    CONFIG_KWARGS: dict[str, Any] = {  # noqa: RUF012 - the base class's name and type
        "loop": "uvloop",
        "http": SluiceProtocol,
        "ws": SluiceWebSocket,
        # A message that is compressed takes 300 KB a socket, and may be a thousand times as long as it came.
        "ws_per_message_deflate": False,
        "ws_ping_interval": HEARTBEAT_INTERVAL_SECONDS,
        "ws_ping_timeout": VANISHED_SECONDS,
        "access_log": False,  # the app's own line is written when the answer ends, and says how
        "server_header": False,
        "proxy_headers": False,  # behind a Unix socket they would have to be believed from anybody
        "lifespan": "on",
        "log_level": None,
        "callback_notify": None,  # the heartbeat is ours
    }
    slots: Slots | None = None
    pod: Pod | None = None
    identity: Identity
    master_signals: "queue.SimpleQueue[int]"
    drain_seconds: float = 60
    metrics_dir: Path | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.slot = 0
        self._told_to_stop = False
        adopt_stdlib_logger("uvicorn.error")
        self.config.timeout_graceful_shutdown = self.drain_seconds + FAREWELL_SECONDS + CANCEL_SECONDS + 1

    def init_process(self) -> None:
        # A worker that Gunicorn aborts leaves no core file, but the stacks of its threads in the log: `init_signals`.
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        super().init_process()

    def init_signals(self) -> None:
        super().init_signals()
        faulthandler.enable()  # not sooner: the line above takes every handler off, SIGABRT's too
        # Uvicorn listens to these from its start on, which is a second or more from now, and raises what it caught once
        # more when it is done. Until then the wish is remembered; behind it the process ends by returning.
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._remember_to_stop)
        # What came since the fork was handled as the master's: it is in our copy of the master's queue.
        with contextlib.suppress(queue.Empty):
            while True:
                self._told_to_stop |= self.master_signals.get_nowait() in (signal.SIGTERM, signal.SIGINT)

    def _remember_to_stop(self, *_: object) -> None:
        self._told_to_stop = True

    def load_wsgi(self) -> None:
        super().load_wsgi()
        # Here, since with Gunicorn's `preload_app` the master makes the application: an exporter of the master's would
        # send every worker's spans as one instance's.
        tracing.configure(self.wsgi)
        garbage.settle()

    async def _serve(self) -> None:
        self.config.app = self.wsgi
        self.wsgi.state.identity = self.identity
        self.wsgi.state.figure_files = self._figure_files()
        server = DrainServer(self.config, self.wsgi, self.drain_seconds)
        self._install_sigquit_handler()
        own = self.slots.socket(self.slot) if self.slots else None
        heartbeat = asyncio.create_task(self._beat(own))
        try:
            await self._run_server(server, own)
        finally:
            heartbeat.cancel()
            if own:
                own.withdraw()
        if not server.started:
            sys.exit(Arbiter.WORKER_BOOT_ERROR)

    def _figure_files(self) -> FigureFiles | None:
        """Where this worker's figures go: it serves without them where that is nowhere."""
        if self.metrics_dir is None:
            return None
        try:
            return FigureFiles(places.claim(self.metrics_dir))
        except OSError as error:
            log.error("no place for metrics, this worker has none", folder=str(self.metrics_dir), reason=str(error))
            return None

    async def _run_server(self, server: DrainServer, own: SlotSocket | None) -> None:
        begin, finish = server.startup, server.shutdown

        async def startup(sockets: list[socket.socket] | None = None) -> None:
            await begin(sockets=sockets)
            if self._told_to_stop:
                server.should_exit = True
            elif own:
                own.publish()

        async def shutdown(sockets: list[socket.socket] | None = None) -> None:
            if not server.should_exit and self.pod:
                # Nobody told it to stop: it has served `max_requests`. Gunicorn would replace it once it is gone.
                self.pod.retire(self.age)
            if own:
                await self._wait_for_successor(own, server)
                own.withdraw()
                # Who has connected is accepted before the socket is closed, which would reset those that wait.
                await asyncio.sleep(ACCEPT_SECONDS)
            await finish(sockets=sockets)

        server.startup, server.shutdown = startup, shutdown  # type: ignore[method-assign]
        await server.serve(sockets=[own.socket] if own else self.sockets)

    async def _wait_for_successor(self, own: SlotSocket, server: DrainServer) -> None:
        """On a reload, Gunicorn stops the old workers before the new ones are up: serve until ours is.

        One that stops of itself waits for the successor that it has asked for, unless it is told to stop meanwhile.
        """
        deadline = monotonic() + SUCCESSOR_SECONDS
        assert self.slots is not None
        # Polled, since what is awaited happens in another process.
        while own.current and monotonic() < deadline:
            if server.should_exit and not self.slots.has_successor(self.slot, self.age):
                return
            await asyncio.sleep(0.05)

    async def _beat(self, own: SlotSocket | None) -> None:
        while True:
            self.notify()
            if own:
                own.beat()
            await asyncio.sleep(HEARTBEAT_SECONDS)
