"""Clients of the WebSocket: one connection for several answers, as a chat page has it."""

import json
from typing import Any, ClassVar
from urllib.parse import urlsplit, urlunsplit

import websocket

from loadtests.observation import Outcome
from loadtests.reading import Reading
from loadtests.surfaces import Meaning, Wish
from loadtests.telemetry import now
from loadtests.users.base import CONNECT_SECONDS_MAX, TIMED_OUT, StreamingUser
from loadtests.users.native import PROMPT

PATH = "/api/v1/ws/generate"
# A page is reloaded now and then.
ANSWERS_PER_CONNECTION = 5
# What a peer that reads nothing may take to let the farewell go.
FAREWELL_SECONDS_MAX = 1.0
MEANINGS = {
    "token": Meaning.TOKEN,
    "end": Meaning.DONE,
    "error": Meaning.FAILED,
    "reconnect": Meaning.RECONNECT,
    "reset": Meaning.RESET,
}


class WebSocketChat(StreamingUser):
    """Asks and reads over one WebSocket; a connection that is lost is opened again, and the answer resumed."""

    scenario: ClassVar[str] = "WebSocket chat"

    def __init__(self, environment: Any) -> None:
        super().__init__(environment)
        self._socket: websocket.WebSocket | None = None
        self._answers = 0

    def wish(self) -> Wish:
        return Wish(PROMPT, self.random.randint(20, 100), self.pace(), seed=self.random.randrange(1_000_000))

    def follow(self, reading: Reading) -> str:
        """As over HTTP."""
        outcome: str = Outcome.OPEN
        try:
            outcome = super().follow(reading)
        finally:
            if outcome != Outcome.FINISHED or self._answers >= ANSWERS_PER_CONNECTION:
                self._hang_up()
        return outcome

    def count(self, outcome: str, milliseconds: float) -> None:
        """Every stream: Locust has no client that would count it."""
        self.count_request("WS", outcome, milliseconds)

    def on_stop(self) -> None:
        self._hang_up()

    def _begin(self, reading: Reading) -> str:
        body = self.surface.body(self._wish, self.options.model)
        del body["stream"]
        return self._converse(reading, body | {"idempotency_key": self._key})

    def _resume(self, reading: Reading) -> str:
        place = {"last_event_id": reading.last_id} if reading.last_id else {"stream_id": reading.observation.stream_id}
        return self._converse(reading, {"type": "resume", **place})

    def _converse(self, reading: Reading, message: dict[str, Any]) -> str:
        """Says it, and reads until the answer is over, or the connection."""
        reading.connect()
        outcome = self._exchange(reading, message)
        if outcome != Outcome.FINISHED:
            self._hang_up()
        return outcome

    def _exchange(self, reading: Reading, message: dict[str, Any]) -> str:
        try:
            peer = self._connected()
            peer.send(json.dumps(message))
            while (outcome := self._take(reading, peer.recv())) is None:
                pass
        except websocket.WebSocketTimeoutException:
            return Outcome.REFUSED if self._socket is None else Outcome.SILENT
        except websocket.WebSocketBadStatusException as error:
            return f"http_{error.status_code}"
        except (websocket.WebSocketException, OSError) as error:
            if self._socket is None:
                return Outcome.REFUSED
            return Outcome.SILENT if TIMED_OUT in str(error) else Outcome.TRUNCATED
        return outcome

    def _take(self, reading: Reading, text: str | bytes) -> str | None:
        if not text:  # the peer closed
            return Outcome.TRUNCATED
        said = json.loads(text)
        kind, identity, observation = said.get("type"), said.get("id") or "", reading.observation
        if kind == "start":
            observation.stream_id = said["stream_id"]
        elif kind == "ping":
            observation.heartbeats += 1
        meaning = MEANINGS.get(kind, Meaning.OTHER)
        if meaning is Meaning.DONE and identity == reading.last_id:
            identity = ""  # there is nothing behind it
        if (told_ms := said.get("retry_ms")) is not None:
            reading.retry_seconds = told_ms / 1000
        # Whoever is refused before a stream has begun is told so as over HTTP, and that is the outcome there, too.
        if meaning is Meaning.FAILED and said.get("retryable") and observation.stream_id:
            meaning, reading.retry_seconds = Meaning.PASSING, said.get("retry_after_seconds")
        return reading.take(meaning, identity, now())

    def _connected(self) -> websocket.WebSocket:
        if self._socket is None:
            address = urlsplit(self.host or "")
            scheme = "wss" if address.scheme == "https" else "ws"
            headers = {"Authorization": f"Bearer {self.options.api_key}"} if self.options.api_key else {}
            self._socket = websocket.create_connection(
                urlunsplit((scheme, address.netloc, PATH, "", "")), timeout=CONNECT_SECONDS_MAX, header=headers
            )
            self._socket.settimeout(self.network_timeout)
            self._answers = 0
        self._answers += 1
        return self._socket

    def _hang_up(self) -> None:
        """Without waiting for the peer's farewell: `close` does, and swallows whatever ends the user meanwhile.

        A user that is not ended by Locust's stop goes on, and Locust waits for it for ever.
        """
        if self._socket is not None:
            leaving, self._socket = self._socket, None
            leaving.settimeout(FAREWELL_SECONDS_MAX)
            try:
                leaving.send_close()
            except (websocket.WebSocketException, OSError):
                pass  # it is gone already
            finally:
                leaving.shutdown()
