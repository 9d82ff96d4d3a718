"""A client of server-sent events: asks, reads as bytes come, comes back where it may, and is observed.

Locust's own ways to read a stream would measure something else. `iter_lines` waits for 1,024 bytes, and
the response time of a streamed request is that of its headers: we read by lines, and set the time ourselves.
"""

import contextlib
import itertools
import random
import uuid
from abc import abstractmethod
from typing import Any, ClassVar

import gevent
from locust import FastHttpUser, constant, events, task
from locust.contrib.fasthttp import FAILURE_EXCEPTIONS, ResponseContextManager

from loadtests.observation import Observation, Outcome
from loadtests.patience import Patience
from loadtests.reading import Reading
from loadtests.sse import LineTooLong
from loadtests.surfaces import Native, Surface, Wish
from loadtests.telemetry import Telemetry, now, telemetry

# Two heartbeats: a connection that was silent for as long is dead.
SILENT_SECONDS_MAX = 30.0
CONNECT_SECONDS_MAX = 10.0
# The longest generation (stream_seconds_max of the ledger) and a minute: heartbeats would hold a client for ever.
STREAM_SECONDS_MAX = 660.0
# What the end of an answer's body may be late behind its last event.
BODY_END_SECONDS_MAX = 1.0
HTTP_OK, HTTP_NO_CONTENT = 200, 204
TIMED_OUT = "timed out"
# Ends of a connection after which a resumable client comes back; the statuses only to a stream that it knows of.
COME_BACK = frozenset({Outcome.TRUNCATED, Outcome.RECONNECT, Outcome.REFUSED, Outcome.SILENT})
# Those of them that are no failure of a connection: the server may end it, and the stream goes on in the next one.
CONTINUED = frozenset({Outcome.TRUNCATED, Outcome.RECONNECT})
COME_BACK_TO_STREAM = COME_BACK | {"http_502", "http_503"}


_NUMBERS = itertools.count()


class Endless(Exception):
    """A stream has taken longer than any may."""


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
    stream_seconds_max: ClassVar[float] = STREAM_SECONDS_MAX

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
        """One stream from its beginning to its end, or to that of the test: every one is told of."""
        scheduled = self.telemetry.due()
        observation = Observation(self.scenario, scheduled, now())
        outcome: str = Outcome.OPEN
        try:
            with gevent.Timeout(self.stream_seconds_max, Endless):
                outcome = self.follow(Reading(self.surface, observation))
        except Endless:
            outcome = Outcome.ENDLESS
        except Exception:
            outcome = Outcome.FAILED  # and not open: Locust goes on with the next, and has the error in its report
            raise
        finally:
            observation.end(now(), outcome)
            self.telemetry.ended(observation)
        self.count(outcome, 1000 * (now() - observation.opened))

    def count(self, outcome: str, milliseconds: float) -> None:
        """Has Locust count a stream that is lost though none of its connections is counted as failed."""
        lost = outcome == Outcome.ENDLESS or (self.resumable and outcome in CONTINUED)
        if lost and outcome not in self.expected:
            self.count_request("STREAM", outcome, milliseconds)

    def count_request(self, kind: str, outcome: str, milliseconds: float) -> None:
        """Has Locust count what it did not send itself."""
        events.request.fire(
            request_type=kind,
            name=self.scenario,
            response_time=milliseconds,
            response_length=0,
            exception=None if outcome in self.expected else RuntimeError(outcome),
            context={},
        )

    def follow(self, reading: Reading) -> str:
        """The stream, over as many connections as it takes; its outcome."""
        self._wish = self.wish()
        # One name for all attempts to begin it: whoever lost the connection before its headers joins what has begun.
        self._key = uuid.uuid4().hex
        patience = Patience(self.random)
        outcome = self._begin(reading)
        while self._comes_back(reading, outcome) and not patience.spent:
            reading.observation.cut(now())
            gevent.sleep(patience.pause_seconds(reading.retry_seconds, reading.heard))
            outcome = self._resume(reading) if reading.observation.stream_id else self._begin(reading)
        return outcome

    def _comes_back(self, reading: Reading, outcome: str) -> bool:
        return self.resumable and outcome in (COME_BACK_TO_STREAM if reading.observation.stream_id else COME_BACK)

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

    def _begin(self, reading: Reading) -> str:
        body = self.surface.body(self._wish, self.options.model)
        headers = self.headers() | ({"Idempotency-Key": self._key} if self.resumable else {})
        reading.connect()
        request = self.client.post(
            self.surface.path, json=body, headers=headers, stream=True, catch_response=True, name=self.scenario
        )
        return self._listen(request, reading)

    def _resume(self, reading: Reading) -> str:
        headers = self.headers() | ({"Last-Event-ID": reading.last_id} if reading.last_id else {})
        path = f"/api/v1/streams/{reading.observation.stream_id}"
        reading.connect()
        request = self.client.get(
            path, headers=headers, stream=True, catch_response=True, name=f"{self.scenario}, resumed"
        )
        return self._listen(request, reading)

    def _listen(self, request: ResponseContextManager, reading: Reading) -> str:
        """Reads one connection to its end, and has Locust count it with the time that all of it took."""
        began = now() - request.request_meta["response_time"] / 1000  # which is that of the headers
        with request as response:
            try:
                outcome = self._status(response)
                if outcome == str(HTTP_OK):
                    found = response.headers.get("x-stream-id")  # type: ignore[union-attr]
                    reading.observation.stream_id = found or reading.observation.stream_id
                    outcome = self._read(response, reading)
                elif response.headers is not None:
                    reading.retry_seconds = _seconds(response.headers.get("retry-after"))
            finally:
                response.request_meta["response_time"] = 1000 * (now() - began)
            if outcome in self.expected or (self.resumable and outcome in CONTINUED):
                response.success()
            else:
                response.failure(outcome)
        return outcome

    def _status(self, response: ResponseContextManager) -> str:
        """The status, as far as it ends things."""
        status = response.status_code
        if status == HTTP_NO_CONTENT:
            return Outcome.FINISHED  # all of it had arrived before
        if status:
            return str(status) if status == HTTP_OK else f"http_{status}"
        waited = response.request_meta["response_time"] / 1000 >= self.network_timeout
        return Outcome.SILENT if waited and TIMED_OUT in str(response.error) else Outcome.REFUSED

    def _read(self, response: ResponseContextManager, reading: Reading) -> str:
        stream = response.stream
        try:
            while line := stream.readline(b"\n"):
                outcome = reading.feed(line, now())
                if outcome == Outcome.FINISHED:
                    _read_out(stream)
                elif outcome is None and self.leaves(reading.observation):
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


def _read_out(stream: Any) -> None:
    """What stands behind the last event is no event, but without it the connection would not serve another request."""
    with gevent.Timeout(BODY_END_SECONDS_MAX, False), contextlib.suppress(*FAILURE_EXCEPTIONS):
        while stream.readline(b"\n"):
            pass


def _seconds(text: str | None) -> float | None:
    """Of a `Retry-After`; a date is no answer to a client that has a stream to go on with."""
    return float(text) if text is not None and text.isascii() and text.isdigit() else None
