"""The streams that `make k8s-verify` reads from a pod that is replaced: always as many, until the pod is told to go."""

import http.client
import json
import threading
import time
import urllib.request

from prometheus_client.parser import text_string_to_metric_families

from app.timeouts import ledger

STREAMS = 20
TOKENS_PER_SECOND = 5
# What begins before the pod is told to go ends within its drain, since that is counted from a pause behind it.
TOKENS = int(TOKENS_PER_SECOND * ledger()["drain_seconds"])
BEGIN_SECONDS_MAX = 30.0
# All that a stream takes, and a machine that is busy.
END_SECONDS_MAX = TOKENS / TOKENS_PER_SECOND + 120
SILENCE_SECONDS_MAX = 60.0
ASK_SECONDS_MAX = 5.0
LOOK_SECONDS = 1.0
COMPLETE = "complete"


class Readers:
    """`begin`, then `finish`.

    Args:
        nginx: the address that leads to the pod's NGINX, `host:port`.
        exporter: that of its exporter.

    Attributes:
        outcomes: what became of each stream that is over.
        draining: how many generations the pod had still to end when it had been told to stop, at most.
    """

    def __init__(self, nginx: str, exporter: str) -> None:
        self.outcomes: list[str] = []
        self.draining = 0
        self._nginx, self._exporter = nginx, exporter
        self._enough = threading.Event()
        self._begun = [threading.Event() for _ in range(STREAMS)]
        self._threads = [threading.Thread(target=self._read_on, args=(n,), daemon=True) for n in range(STREAMS)]

    @property
    def wrong(self) -> list[str]:
        """What became of those that did not end as they should."""
        return [outcome for outcome in self.outcomes if outcome != COMPLETE]

    def begin(self) -> None:
        """Until every reader has a token, or has failed."""
        for thread in self._threads:
            thread.start()
        deadline = time.monotonic() + BEGIN_SECONDS_MAX
        for number, begun in enumerate(self._begun):
            if not begun.wait(max(0.0, deadline - time.monotonic())):
                self.outcomes.append(f"no token of stream {number} within {BEGIN_SECONDS_MAX:g} s")

    def finish(self) -> None:
        """Begin no other, and look at what the pod still has to do until all are over."""
        self._enough.set()
        deadline = time.monotonic() + END_SECONDS_MAX
        while any(thread.is_alive() for thread in self._threads):
            if time.monotonic() > deadline:
                self.outcomes.append(f"a stream did not end within {END_SECONDS_MAX:g} s")
                return
            self.draining = max(self.draining, generations_draining(self._exporter))
            time.sleep(LOOK_SECONDS)

    def _read_on(self, number: int) -> None:
        # The first ones differ, for streams of any age to be open at any moment.
        tokens = TOKENS * (number + 1) // STREAMS
        while True:
            outcome = self._read(number, tokens)
            self.outcomes.append(outcome)
            self._begun[number].set()
            if outcome != COMPLETE or self._enough.is_set():
                return
            tokens = TOKENS

    def _read(self, number: int, tokens: int) -> str:
        """One stream, to its end, and what became of it."""
        simulator = {"seed": number, "tokens": tokens, "tokens_per_second": TOKENS_PER_SECOND}
        body = json.dumps({"prompt": f"Tell me {number}.", "stream": True, "simulator": simulator})
        seen, done = 0, False
        connection = http.client.HTTPConnection(self._nginx, timeout=SILENCE_SECONDS_MAX)
        try:
            connection.request("POST", "/api/v1/generate", body, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            for line in answer:
                if line.startswith(b"event: token"):
                    seen += 1
                    self._begun[number].set()
                done = done or line.startswith(b"event: done")
        except (OSError, http.client.HTTPException) as error:
            return f"cut: {type(error).__name__}"
        finally:
            connection.close()
        if answer.status == http.client.OK and done and seen == tokens:
            return COMPLETE
        return f"status {answer.status}, {seen} of {tokens} tokens, done: {done}"


def generations_draining(exporter: str) -> int:
    """How many the pod has that were begun before it was told to stop; none before that, and none when it is gone."""
    try:
        with urllib.request.urlopen(f"http://{exporter}/metrics", timeout=ASK_SECONDS_MAX) as answer:
            text = answer.read().decode()
    except (OSError, http.client.HTTPException):
        return 0
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    return int(
        sum(
            sample.value
            for sample in samples
            if sample.name == "sluice_active_streams" and sample.labels["draining"] == "true"
        )
    )
