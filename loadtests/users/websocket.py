"""Clients of the WebSocket: one connection for several answers, as a chat page has it."""

import json
from typing import Any, ClassVar
from urllib.parse import urlsplit, urlunsplit

import websocket
from locust import events

from loadtests.observation import Observation, Outcome
from loadtests.surfaces import Native, Wish
from loadtests.telemetry import now
from loadtests.users.base import CONNECT_SECONDS_MAX, SILENT_SECONDS_MAX, StreamingUser, follows
from loadtests.users.native import PROMPT

PATH = "/api/v1/ws/generate"
# A page is reloaded now and then.
ANSWERS_PER_CONNECTION = 5
ENDS = {"end": Outcome.FINISHED, "error": Outcome.FAILED, "reconnect": Outcome.RECONNECT}


class WebSocketChat(StreamingUser):
    """Asks and reads over one WebSocket; a connection that is lost is opened again, and the answer resumed."""

    scenario: ClassVar[str] = "WebSocket chat"

    def __init__(self, environment: Any) -> None:
        super().__init__(environment)
        self._socket: websocket.WebSocket | None = None
        self._answers = 0

    def wish(self) -> Wish:
        return Wish(PROMPT, self.random.randint(20, 100), self.pace(), seed=self.random.randrange(1_000_000))

    def stream(self) -> None:
        observation = Observation(self.scenario, self.telemetry.due(), now())
        body = Native().body(self.wish(), self.options.model)
        del body["stream"]
        outcome = self._converse(observation, body)
        if outcome in {Outcome.TRUNCATED, Outcome.RECONNECT} and self._last_id:
            observation.cut(now())
            self._hang_up()
            outcome = self._converse(observation, {"type": "resume", "last_event_id": self._last_id})
        observation.end(now(), outcome)
        if outcome != Outcome.FINISHED or self._answers >= ANSWERS_PER_CONNECTION:
            self._hang_up()
        events.request.fire(
            request_type="WS",
            name=self.scenario,
            response_time=1000 * ((observation.ended or now()) - observation.opened),
            response_length=0,
            exception=None if outcome in self.expected else RuntimeError(outcome),
            context={},
        )
        self.telemetry.ended(observation)

    def on_stop(self) -> None:
        self._hang_up()

    def _converse(self, observation: Observation, message: dict[str, Any]) -> str:
        """Says it, and reads until the answer is over."""
        if "last_event_id" not in message:
            self._last_id = ""
        try:
            peer = self._connected()
            peer.send(json.dumps(message))
            while True:
                if (outcome := self._take(observation, peer.recv())) is not None:
                    return outcome
        except websocket.WebSocketTimeoutException:
            return Outcome.SILENT
        except websocket.WebSocketBadStatusException as error:
            return f"http_{error.status_code}"
        except (websocket.WebSocketException, OSError):
            return Outcome.TRUNCATED if observation.tokens else Outcome.REFUSED

    def _take(self, observation: Observation, text: str | bytes) -> str | None:
        if not text:  # the peer closed
            return Outcome.TRUNCATED
        said = json.loads(text)
        kind, identity = said.get("type"), said.get("id", "")
        if kind == "start":
            observation.stream_id = said["stream_id"]
        elif kind == "ping":
            observation.heartbeats += 1
        if kind == "token":
            if identity and not follows(self._last_id, identity):
                return Outcome.REPEATED
            self._last_id = identity or self._last_id
            observation.token(now())
        return ENDS.get(kind)

    def _connected(self) -> websocket.WebSocket:
        if self._socket is None:
            address = urlsplit(self.host or "")
            scheme = "wss" if address.scheme == "https" else "ws"
            headers = {"Authorization": f"Bearer {self.options.api_key}"} if self.options.api_key else {}
            self._socket = websocket.create_connection(
                urlunsplit((scheme, address.netloc, PATH, "", "")), timeout=CONNECT_SECONDS_MAX, header=headers
            )
            self._socket.settimeout(SILENT_SECONDS_MAX)
            self._answers = 0
        self._answers += 1
        return self._socket

    def _hang_up(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None
