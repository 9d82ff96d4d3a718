"""A collector of traces: takes OTLP over HTTP as a real one does, and keeps the spans, decoded.

https://opentelemetry.io/docs/specs/otlp/#otlphttp
"""

import gzip
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from typing import Any, NamedTuple

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span as Message

from tests.support.loopback_server import LoopbackServer

WAIT_SECONDS_MAX = 20.0


class Span(NamedTuple):
    """One span, in words."""

    name: str
    kind: str
    trace: str
    id: str
    parent: str
    seconds: float
    attributes: dict[str, Any]
    events: list[str]
    links: list[str]
    """The traces that it is linked to."""
    status: str
    resource: dict[str, Any]


class Collector(LoopbackServer):
    """As a context manager; `env` is what a traced process needs to find it."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.bytes = bytearray()
        """All that came, as it came out of its compression."""
        super().__init__(type("Bound", (_Handler,), {"collector": self}))
        self.env = {"OTEL_EXPORTER_OTLP_ENDPOINT": self.url, "OTEL_BSP_SCHEDULE_DELAY": "100"}

    def take(self, body: bytes) -> None:
        """What an exporter posts."""
        self.bytes += body
        request = ExportTraceServiceRequest.FromString(body)
        for resource in request.resource_spans:
            named = _attributes(resource.resource.attributes)
            for scope in resource.scope_spans:
                self.spans += [_span(message, named) for message in scope.spans]

    def wait(self, holds: Callable[[list[Span]], bool]) -> list[Span]:
        """The spans, once there are those that are waited for."""
        deadline = time.monotonic() + WAIT_SECONDS_MAX
        while not holds(list(self.spans)):
            assert time.monotonic() < deadline, [(span.name, span.attributes) for span in self.spans]
            time.sleep(0.05)
        return list(self.spans)

    def of_stream(self, stream_id: str, count: int) -> list[Span]:
        """The spans of one stream, once there are so many; in the order in which they ended."""

        def own(spans: list[Span]) -> list[Span]:
            return [span for span in spans if span.attributes.get("sluice.stream_id") == stream_id]

        return own(self.wait(lambda spans: len(own(spans)) >= count))


class _Handler(BaseHTTPRequestHandler):
    collector: Collector
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        assert self.path == "/v1/traces"
        assert self.headers["Content-Type"] == "application/x-protobuf"
        self.collector.take(body)
        answer = ExportTraceServiceResponse().SerializeToString()
        self.send_response(200)
        self.send_header("Content-Type", "application/x-protobuf")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: object) -> None:
        pass


def _span(message: Message, resource: dict[str, Any]) -> Span:
    return Span(
        name=message.name,
        kind=Message.SpanKind.Name(message.kind).removeprefix("SPAN_KIND_").lower(),
        trace=message.trace_id.hex(),
        id=message.span_id.hex(),
        parent=message.parent_span_id.hex(),
        seconds=(message.end_time_unix_nano - message.start_time_unix_nano) / 1e9,
        attributes=_attributes(message.attributes),
        events=[event.name for event in message.events],
        links=[link.trace_id.hex() for link in message.links],
        status=message.status.StatusCode.Name(message.status.code).removeprefix("STATUS_CODE_").lower(),
        resource=resource,
    )


def _attributes(pairs: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for pair in pairs:
        assert isinstance(pair, KeyValue)
        found[pair.key] = _value(pair.value)
    return found


def _value(value: AnyValue) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_value(each) for each in value.array_value.values]
    return getattr(value, str(kind))
