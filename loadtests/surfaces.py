"""What the events of each surface mean, and what is asked of it."""

import json
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any, Protocol

from loadtests.sse import Event


class Meaning(Enum):
    """Of an event, for whoever only counts."""

    TOKEN = auto()
    DONE = auto()
    FAILED = auto()
    PASSING = auto()  # a failure that may pass: with an id the stream's end, without one only the connection's
    RECONNECT = auto()
    RESET = auto()
    OTHER = auto()


@dataclass(frozen=True)
class Wish:
    """An answer that is wanted. Without a pace, the upstream's own is taken, as it must be where it is no simulator."""

    prompt: str
    tokens: int
    tokens_per_second: float | None = 20.0
    first_token_ms: float | None = None
    seed: int | None = None
    fault: dict[str, Any] | None = None

    def simulator(self) -> dict[str, Any] | None:
        """The simulator's options."""
        if self.tokens_per_second is None:
            return None
        options = {
            "tokens": self.tokens,
            "tokens_per_second": self.tokens_per_second,
            "first_token_ms": self.first_token_ms,
            "seed": self.seed,
            "fault": self.fault,
        }
        return {name: value for name, value in options.items() if value is not None}


class Surface(Protocol):
    """A route that streams."""

    path: str

    def body(self, wish: Wish, model: str) -> dict[str, Any]: ...

    def meaning(self, event: Event) -> Meaning: ...


NATIVE_MEANINGS = {
    "token": Meaning.TOKEN,
    "done": Meaning.DONE,
    "error": Meaning.FAILED,
    "reconnect": Meaning.RECONNECT,
    "reset": Meaning.RESET,
}


class Native:
    """`POST /api/v1/generate`."""

    path = "/api/v1/generate"

    def body(self, wish: Wish, model: str) -> dict[str, Any]:
        options = wish.simulator()
        bound = {"simulator": options} if options else {"max_tokens": wish.tokens}
        return {"prompt": wish.prompt, "model": model, "stream": True, **bound}

    def meaning(self, event: Event) -> Meaning:
        meaning = NATIVE_MEANINGS.get(event.name, Meaning.OTHER)
        if meaning is Meaning.FAILED and json.loads(event.data).get("retryable"):
            return Meaning.PASSING
        return meaning


class OpenAI:
    """`POST /v1/chat/completions`."""

    path = "/v1/chat/completions"

    def body(self, wish: Wish, model: str) -> dict[str, Any]:
        options = wish.simulator()
        bound = {"simulator": options} if options else {"max_tokens": wish.tokens}
        return {"model": model, "stream": True, "messages": [{"role": "user", "content": wish.prompt}], **bound}

    def meaning(self, event: Event) -> Meaning:
        if event.data == "[DONE]":
            return Meaning.DONE
        said = json.loads(event.data)
        if "error" in said:
            return Meaning.FAILED
        # The role, the finish reason and the usage come in chunks of their own, which are no tokens.
        delta = (said.get("choices") or [{}])[0].get("delta", {})
        return Meaning.TOKEN if delta.get("content") else Meaning.OTHER
