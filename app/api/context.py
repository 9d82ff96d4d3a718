"""What every surface needs to answer a generating request: the models, the producers, a connection's bounds."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from fastapi import Request

from app.api.errors import error_body
from app.api.schemas import SimulatorBody
from app.errors import InvalidRequest, ModelNotFound
from app.events import Done
from app.providers.base import Fault, GenerationRequest, Provider, SimulatorOptions
from app.streams.producer import Generation, Producers
from app.streams.response import BatchResponse, StreamResponse
from app.streams.sse import Encoder

TRACE_HEADERS = ("traceparent", "tracestate", "x-request-id")


@dataclass(frozen=True)
class Context:
    """Made once by `main`; `app.state.context` holds it."""

    providers: dict[str, Provider]
    producers: Producers
    heartbeat_seconds: float
    send_seconds: float
    simulator_options: bool

    @property
    def default_model(self) -> str:
        return next(iter(self.providers))

    def provider(self, model: str) -> Provider:
        """The provider of `model`.

        Raises:
            ModelNotFound: there is none of that name.
        """
        if model not in self.providers:
            raise ModelNotFound(f"There is no model {model[:100]!r}.")
        return self.providers[model]

    def simulator(self, body: SimulatorBody | None) -> SimulatorOptions | None:
        """The body's simulator options as the provider takes them.

        Raises:
            InvalidRequest: this environment does not take them.
        """
        if body is None:
            return None
        if not self.simulator_options:
            raise InvalidRequest("simulator: only taken where SLUICE_ENVIRONMENT is development.")
        fault = Fault(body.fault.kind, body.fault.at_token) if body.fault else None
        return SimulatorOptions(body.seed, body.first_token_ms, body.tokens_per_second, body.tokens, body.jitter, fault)

    def stream(self, request: GenerationRequest, encoder: Callable[[Generation], Encoder]) -> StreamResponse:
        """Answer with server-sent events."""
        return StreamResponse(encoder, **self._common(request))

    def batch(self, request: GenerationRequest, body: Callable[[Generation, Done], Any]) -> BatchResponse:
        """Answer with one JSON document."""
        return BatchResponse(body, **self._common(request))

    def _common(self, request: GenerationRequest) -> dict[str, Any]:
        provider = self.provider(request.model)
        return {
            "producers": self.producers,
            "start": lambda: self.producers.start(provider, request),
            "error_body": error_body,
            "heartbeat_seconds": self.heartbeat_seconds,
            "send_seconds": self.send_seconds,
        }


def context(request: Request) -> Context:
    """The dependency by which routes get it."""
    found: Context = request.app.state.context
    return found


def upstream_headers(request: Request) -> dict[str, str]:
    """The request's trace headers, to pass on."""
    headers = {name: request.headers[name] for name in TRACE_HEADERS if name in request.headers}
    return headers | {"x-request-id": request.scope.get("sluice.request_id", "")}
