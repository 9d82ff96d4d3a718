"""A client of server-sent events: asks, reads as bytes come, comes back where it may, and is observed.

Locust's own ways to read a stream would measure something else. `iter_lines` waits for 1,024 bytes, and
the response time of a streamed request is that of its headers: we read by lines, and set the time ourselves.
"""

import itertools
import random
from abc import abstractmethod
from typing import Any, ClassVar

import gevent
from locust import FastHttpUser, constant, task
from locust.contrib.fasthttp import FAILURE_EXCEPTIONS, ResponseContextManager

from loadtests.observation import Observation, Outcome
from loadtests.sse import Event, EventDecoder, LineTooLong
from loadtests.surfaces import Meaning, Native, Surface, Wish
from loadtests.telemetry import Telemetry, now, telemetry

# Two heartbeats and some: a connection that was silent for as long is dead.
SILENT_SECONDS_MAX = 40.0
CONNECT_SECONDS_MAX = 10.0
# How often, and after how long at least, a client comes back for one stream.
RESUMES_MAX = 12
RESUME_SECONDS_MIN = 0.1
RESUME_SECONDS_MAX = 2.0
HTTP_OK, HTTP_NO_CONTENT = 200, 204
TIMED_OUT = "timed out"
# Ends of a connection after which a resumable client comes back.
COME_BACK = frozenset({Outcome.TRUNCATED, Outcome.RECONNECT, Outcome.REFUSED, "http_502", "http_503"})


_NUMBERS = itertools.count()


class StreamingUser(FastHttpUser):
    """Streams answers, one after the other. Scenarios say what they ask for, and when they leave."""

    abstract = True
    wait_time = constant(0)
    network_timeout = SILENT_SECONDS_MAX
    connection_timeout = CONNECT_SECONDS_MAX
    insecure = False
    surface: ClassVar[Surface] = Native()
    scenario: ClassVar[str] = ""
    resumable: ClassVar[bool] = True
    # What is no failure.
    expected: ClassVar[frozenset[str]] = frozenset({Outcome.FINISHED})

    def __init__(self, environment: Any) -> None:
        super().__init__(environment)
        self.options: Any = environment.parsed_options
        self.telemetry: Telemetry = telemetry(environment)
        # Its own sequence, so that a run can be repeated whatever the other users do.
        self.random = random.Random(f"{self.options.seed}/{self.scenario}/{next(_NUMBERS)}")  # noqa: S311

    @abstractmethod
    def wish(self) -> Wish:
        """What is asked for next."""

    def leaves(self, observation: Observation) -> bool:
        """Whether the client goes away now, in the middle."""
        del observation
        return False

    def between_reads(self) -> None:
        """What a client does between two lines."""

    @task
    def work(self) -> None:
        """Locust's only task: one that is overridden would be run beside the one that overrides it."""
        self.stream()

    def stream(self) -> None:
        """One stream from its beginning to its end, over as many connections as it takes."""
        scheduled = self.telemetry.due()
        observation = Observation(self.scenario, scheduled, now())
        reading = Reading(self.surface, observation)
        outcome = self._begin(reading)
        attempt = 0
        while self.resumable and outcome in COME_BACK and observation.stream_id and attempt < RESUMES_MAX:
            attempt += 1
            observation.cut(now())
            bound = min(RESUME_SECONDS_MAX, RESUME_SECONDS_MIN * 2**attempt)
            gevent.sleep(self.random.uniform(RESUME_SECONDS_MIN, bound))
            outcome = self._resume(reading)
        observation.end(now(), outcome)
        self.telemetry.ended(observation)

    def headers(self) -> dict[str, str]:
        """Of every request. Locust asks for compression, which it does not undo in streams."""
        headers = {"Accept": "text/event-stream", "Accept-Encoding": "identity"}
        if self.resumable:
            headers["Sluice-Resume"] = "1"
        if self.options.api_key:
            headers["Authorization"] = f"Bearer {self.options.api_key}"
        return headers

    def pace(self) -> float | None:
        """Tokens a second that the simulator is asked for; None where the model is a real one."""
        return self.options.pace or None

    def _begin(self, reading: "Reading") -> str:
        body = self.surface.body(self.wish(), self.options.model)
        request = self.client.post(
            self.surface.path, json=body, headers=self.headers(), stream=True, catch_response=True, name=self.scenario
        )
        return self._listen(request, reading)

    def _resume(self, reading: "Reading") -> str:
        headers = self.headers() | ({"Last-Event-ID": reading.last_id} if reading.last_id else {})
        path = f"/api/v1/streams/{reading.observation.stream_id}"
        request = self.client.get(
            path, headers=headers, stream=True, catch_response=True, name=f"{self.scenario}, resumed"
        )
        return self._listen(request, reading)

    def _listen(self, request: ResponseContextManager, reading: "Reading") -> str:
        """Reads one connection to its end, and has Locust count it with the time that all of it took."""
        began = now()
        with request as response:
            observation = reading.observation
            outcome = self._status(response)
            if outcome == str(HTTP_OK):
                observation.stream_id = response.headers.get("x-stream-id") or observation.stream_id  # type: ignore[union-attr]
                outcome = self._read(response, reading)
            response.request_meta["response_time"] = 1000 * (now() - began)
            # A connection that is to be continued is no failure of the stream.
            continued = self.resumable and outcome in {Outcome.RECONNECT, Outcome.TRUNCATED}
            if outcome in self.expected or continued:
                response.success()
            else:
                response.failure(outcome)
        return outcome

    def _status(self, response: ResponseContextManager) -> str:
        """The status, as far as it ends things."""
        status = response.status_code
        if status == HTTP_NO_CONTENT:
            return Outcome.FINISHED  # all of it had arrived before
        if status == HTTP_OK:
            return str(status)
        return f"http_{status}" if status else Outcome.REFUSED

    def _read(self, response: ResponseContextManager, reading: "Reading") -> str:
        stream = response.stream
        reading.connect()
        try:
            while line := stream.readline(b"\n"):
                outcome = reading.feed(line, now())
                if outcome is None and self.leaves(reading.observation):
                    outcome = Outcome.CANCELLED
                if outcome is not None:
                    return outcome
                self.between_reads()
        except LineTooLong:
            return Outcome.FAILED
        except FAILURE_EXCEPTIONS as error:
            return Outcome.SILENT if TIMED_OUT in str(error) else Outcome.TRUNCATED
        finally:
            stream.release()  # closes it, unless the answer is complete
        return Outcome.TRUNCATED


class Reading:
    """What one client has read of one stream, over all its connections."""

    def __init__(self, surface: Surface, observation: Observation) -> None:
        self.observation = observation
        self.last_id = ""
        self._surface = surface
        self._decoder = EventDecoder()

    def connect(self) -> None:
        """A new connection begins a new sequence of bytes."""
        self._decoder = EventDecoder()

    def feed(self, line: bytes, at: float) -> str | None:
        """Takes a line that arrived; the outcome, when it is one."""
        before = self._decoder.comments
        for event in self._decoder.feed(line):
            if (outcome := self._event(event, at)) is not None:
                return outcome
        self.observation.heartbeats += self._decoder.comments - before
        return None

    def _event(self, event: Event, at: float) -> str | None:
        meaning = self._surface.meaning(event)
        if event.id and event.id != self.last_id:
            if meaning is not Meaning.RESET and not follows(self.last_id, event.id):
                return Outcome.REPEATED
            self.last_id = event.id
        if meaning is Meaning.TOKEN:
            self.observation.token(at)
        return ENDS.get(meaning)


ENDS = {Meaning.DONE: Outcome.FINISHED, Meaning.FAILED: Outcome.FAILED, Meaning.RECONNECT: Outcome.RECONNECT}


def follows(last: str, following: str) -> bool:
    """Whether an id is the next of its stream: `<stream>.<epoch>.<seq>`, without a hole and without a repetition."""
    if not last:
        return True
    stream, epoch, seq = last.split(".")
    return following == f"{stream}.{epoch}.{int(seq) + 1}"
