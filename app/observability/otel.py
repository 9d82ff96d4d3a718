"""OpenTelemetry, set up for streams: one server span for each request, and a client span for each attempt.

Spans are queued and sent by a thread of the SDK's own; a full queue drops them, and nobody waits.
"""

import asyncio
import os
import socket
import threading
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

# Before the instrumentation is imported: the names of HTTP's attributes that are stable.
os.environ.setdefault("OTEL_SEMCONV_STABILITY_OPT_IN", "http")

from fastapi import FastAPI
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Link, SpanContext
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from opentelemetry.util.types import AttributeValue

from app.observability.genai import AttemptSpan
from app.observability.plain_scope import show_plainly
from app.version import VERSION

# What is left of a drain for the last spans: DESIGN's bound for telemetry.
CLOSE_SECONDS_MAX = 2.0
PROBES = "/livez$,/readyz$"
CONTENT = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"


class Otel:
    """See the module. Made after the fork: of a thread that the master had, a worker has none."""

    def __init__(self) -> None:
        own = {
            "service.name": "sluice",
            "service.version": VERSION,
            "service.instance.id": f"{socket.gethostname()}-{os.getpid()}",
        }
        # Its own hook at exit would wait for a collector that is away.
        self._provider = TracerProvider(resource=Resource(own | _from_environment()), shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        self._tracer = self._provider.get_tracer("sluice", VERSION)
        self._propagator = TraceContextTextMapPropagator()
        self._content = os.environ.get(CONTENT, "").lower() == "true"

    def instrument(self, app: FastAPI) -> None:
        """Give each request a span; a stream's lasts as long as its answer."""
        FastAPIInstrumentor.instrument_app(
            app,
            tracer_provider=self._provider,
            excluded_urls=PROBES,
            exclude_spans=["send", "receive"],  # one for each token otherwise
        )
        show_plainly(app)

    def current_headers(self) -> dict[str, str]:
        headers: dict[str, str] = {}
        self._propagator.inject(headers)
        return headers

    def describe(self, attributes: Mapping[str, Any]) -> None:
        span = trace.get_current_span()
        if span.is_recording():
            span.set_attributes({f"sluice.{name}": value for name, value in attributes.items()})

    def link(self, headers: Mapping[str, str]) -> None:
        span, first = trace.get_current_span(), self._first(headers)
        if first is not None and first.trace_id != span.get_span_context().trace_id:
            span.add_link(first)

    def begin_attempt(
        self, headers: Mapping[str, str], messages: list[dict[str, Any]], **attributes: Any
    ) -> AttemptSpan:
        first, here = self._first(headers), trace.get_current_span().get_span_context()
        # Nobody's request, or another's than the one that began it: a takeover.
        links = [Link(first)] if first is not None and first.trace_id != here.trace_id else []
        span = AttemptSpan(self._tracer, links, messages if self._content else None, **attributes)
        self._propagator.inject(span.headers, trace.set_span_in_context(span.span, Context()))
        return span

    async def aclose(self) -> None:
        # A daemon: neither this coroutine nor the interpreter's end waits for it any longer than this.
        loop, closed = asyncio.get_running_loop(), asyncio.Event()

        def close() -> None:
            self._provider.shutdown()
            with suppress(RuntimeError):  # the loop is over by now
                loop.call_soon_threadsafe(closed.set)

        threading.Thread(target=close, name="otel-close", daemon=True).start()
        with suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_SECONDS_MAX):
                await closed.wait()

    def _first(self, headers: Mapping[str, str]) -> SpanContext | None:
        context = self._propagator.extract(dict(headers), Context())
        found = trace.get_current_span(context).get_span_context()
        return found if found.is_valid else None


def _from_environment() -> dict[str, AttributeValue]:
    """What OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES say, and the SDK of itself."""
    found = dict(Resource.create({}).attributes)
    if str(found.get("service.name", "")).startswith("unknown_service"):
        del found["service.name"]
    if "service.instance.id" not in os.environ.get("OTEL_RESOURCE_ATTRIBUTES", ""):
        found.pop("service.instance.id", None)  # the SDK makes one up, which says nothing of the host and the process
    return found
