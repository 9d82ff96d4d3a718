"""The two ways in that a test tries alike: the native surface and OpenAI's."""

from dataclasses import dataclass
from typing import Any

from tests.support.call import Call


@dataclass(frozen=True)
class Surface:
    """Where a request goes, and what it and its answers look like."""

    name: str
    path: str
    question: dict[str, Any]

    def body(self, model: str, *, stream: bool = True, **more: Any) -> dict[str, Any]:
        """A request. Nobody who leaves is waited for."""
        policy = {"on_disconnect": "cancel"} if self is NATIVE else {}
        return {"model": model, "stream": stream, **self.question, **policy, **more}

    def error(self, call: Call) -> dict[str, Any]:
        """The error that the call ended with, as a document or as an event."""
        said: dict[str, Any] = call.frames[-1].json() if call.frames else call.json
        return said if self is NATIVE and call.frames else dict(said["error"])


NATIVE = Surface("native", "/api/v1/generate", {"prompt": "Hello"})
OPENAI = Surface("openai", "/v1/chat/completions", {"messages": [{"role": "user", "content": "Hello"}]})
SURFACES = [NATIVE, OPENAI]
