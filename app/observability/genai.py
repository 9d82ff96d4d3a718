"""The span of one attempt at an upstream, by OpenTelemetry's conventions for generative AI.

Those are still in development, and have moved to a repository of their own: their names are here and nowhere else.
https://github.com/open-telemetry/semantic-conventions-genai
"""

from collections.abc import Sequence
from typing import Any

from opentelemetry.trace import Link, SpanKind, Status, StatusCode, Tracer

from app.observability.genai_messages import input_messages, output_messages

OPERATION = "chat"
# Of what was asked, and of what was said, where content is switched on.
CONTENT_CHARACTERS_MAX = 8192


class AttemptSpan:
    """Ends by `end`, once. `headers` make the upstream's spans part of it.

    Args:
        messages: what is asked, to be told; None tells no content.
        model: as it was asked for.
        provider: what protocol the upstream speaks.
        upstream: its name.
        stream: the stream's id.
    """

    def __init__(
        self,
        tracer: Tracer,
        links: Sequence[Link],
        messages: list[dict[str, Any]] | None,
        *,
        model: str,
        provider: str,
        upstream: str,
        stream: str,
    ) -> None:
        self._content = messages is not None
        attributes: dict[str, Any] = {
            "gen_ai.operation.name": OPERATION,
            "gen_ai.provider.name": provider,
            "gen_ai.request.model": model,
            "gen_ai.request.stream": True,
            "sluice.upstream": upstream,
            "sluice.stream_id": stream,
        }
        if messages is not None:
            attributes["gen_ai.input.messages"] = input_messages(messages, CONTENT_CHARACTERS_MAX)
        # The simulator is in this process.
        kind = SpanKind.INTERNAL if provider == "simulator" else SpanKind.CLIENT
        self.span = tracer.start_span(f"{OPERATION} {model}", kind=kind, links=links, attributes=attributes)
        self.headers: dict[str, str] = {}

    def first_token(self, seconds: float) -> None:
        """The answer has begun."""
        self.span.add_event("gen_ai.first_token")
        self.span.set_attribute("gen_ai.response.time_to_first_chunk", seconds)

    def end(
        self, outcome: str, input_tokens: int, output_tokens: int, finish_reason: str | None, text: str | None
    ) -> None:
        """It is over.

        Args:
            outcome: `ok`, `given_up`, or the code of the error that it ended with.
            text: what it said.
        """
        span = self.span
        span.set_attribute("sluice.outcome", outcome)
        span.set_attribute("gen_ai.usage.input_tokens", input_tokens)
        span.set_attribute("gen_ai.usage.output_tokens", output_tokens)
        if finish_reason is not None:
            span.set_attribute("gen_ai.response.finish_reasons", [finish_reason])
        if self._content and text is not None:
            told = output_messages(text, finish_reason, CONTENT_CHARACTERS_MAX)
            span.set_attribute("gen_ai.output.messages", told)
        # Who stops listening is no error of anybody's.
        if outcome not in {"ok", "given_up"}:
            span.set_attribute("error.type", outcome)
            span.set_status(Status(StatusCode.ERROR))
        span.end()
