"""Traces, for whoever has something to say in them; where no OTLP endpoint is configured, nothing is imported or done.

One for each process, as the logger is. What OpenTelemetry makes of it is in `otel.py`. A stream's first trace is known
by the `traceparent` that its record keeps among the request's headers.
"""

import os
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fastapi import FastAPI

    from app.observability.genai import AttemptSpan
    from app.observability.otel import Otel

ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
# W3C's Trace Context: version, trace, parent, flags.
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}(?:-.*)?")

_otel: "Otel | None" = None


def configure(app: "FastAPI") -> None:
    """Trace this process's requests, if the environment says where traces go; after the fork, and before the first."""
    global _otel  # noqa: PLW0603 - one way out for the process is the point
    if os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true" or not any(map(os.environ.get, ENDPOINTS)):
        return
    from app.observability.otel import Otel

    _otel = _otel or Otel()
    _otel.instrument(app)


async def aclose() -> None:
    """Send what is left, for a moment; a collector that is away delays nobody's exit."""
    if _otel is not None:
        await _otel.aclose()


def trace_of(headers: Mapping[str, str]) -> str | None:
    """The trace that these headers are of."""
    found = _TRACEPARENT.fullmatch(headers.get("traceparent", ""))
    return found[1] if found else None


def current_headers() -> dict[str, str]:
    """The headers that make what is asked for part of this request's trace; none without one of ours."""
    return _otel.current_headers() if _otel is not None else {}


def describe(**attributes: Any) -> None:
    """Say more of this request."""
    if _otel is not None:
        _otel.describe(attributes)


def link(headers: Mapping[str, str]) -> None:
    """This request is about a stream that began with `headers`: link it to that trace, unless it is this one."""
    if _otel is not None:
        _otel.link(headers)


def begin_attempt(
    headers: Mapping[str, str], messages: list[dict[str, Any]], **attributes: Any
) -> "AttemptSpan | None":
    """A span of one request to an upstream.

    Args:
        headers: of the request that began the stream.
        messages: what is asked; only told where content is switched on.
        attributes: see `AttemptSpan`.
    """
    return _otel.begin_attempt(headers, messages, **attributes) if _otel is not None else None
