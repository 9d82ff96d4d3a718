"""Makes the routes of a catalog: its models, each with its upstreams as providers with a gate and a breaker."""

from typing import Any, cast

from app.catalog import Catalog, CatalogError, Model, Upstream
from app.providers.anthropic import BASE_URL, AnthropicProvider
from app.providers.base import Provider
from app.providers.langchain import LangChainProvider, RunnableError
from app.providers.openai import OpenAIProvider
from app.providers.simulator import Simulator
from app.routing.bill import Price
from app.routing.breaker import Breaker
from app.routing.gate import Gate
from app.routing.prefill import Prefill
from app.routing.route import Route
from app.routing.target import Target


def routes_of(catalog: Catalog, queue_seconds_max: float) -> dict[str, Route]:
    """The routes by their models' names.

    Args:
        queue_seconds_max: bounds all queues; shorter than a heartbeat, it makes a refusal a real status.

    Raises:
        CatalogError: an upstream names a program that cannot be used.
    """
    return {name: _route(name, model, queue_seconds_max) for name, model in catalog.models.items()}


def _route(name: str, model: Model, queue_seconds_max: float) -> Route:
    return Route(
        [_target(f"{name}/{at}", name, each, queue_seconds_max) for at, each in enumerate(model.upstreams)],
        after_first_token=model.after_first_token,
        resume=model.upstreams[0].resume_strategy,
        attempts_max=model.attempts_max,
        retry_share=model.retry_share,
        total_seconds=model.answer_seconds,
        hold_tokens=model.hold_tokens,
        hold_seconds=model.hold_seconds,
        hedge_percentile=model.hedge_percentile,
    )


def _target(name: str, model: str, upstream: Upstream, queue_seconds_max: float) -> Target:
    return Target(
        name,
        _usable(name, upstream, model),
        Gate(upstream.concurrency_max, upstream.queue_max, min(upstream.queue_seconds, queue_seconds_max)),
        Breaker(upstream.breaker_failures_max, upstream.breaker_open_seconds),
        retries_max=upstream.retries,
        weight=upstream.weight,
        prefill=cast(Prefill, upstream.continues),
        tools=upstream.tools,
        protocol=upstream.provider,
        price=Price(upstream.price.input, upstream.price.output) if upstream.price else None,
    )


def _usable(name: str, upstream: Upstream, model: str) -> Provider:
    try:
        return _provider(upstream, model)
    except RunnableError as error:
        raise CatalogError(f"SLUICE_CONFIG: upstream {name}: runnable: {error}") from None


def _provider(upstream: Upstream, model: str) -> Provider:
    if upstream.provider == "simulator":
        return Simulator(upstream.idle_seconds, upstream.first_token_seconds)
    if upstream.provider == "langchain":
        return LangChainProvider(
            str(upstream.runnable),
            first_token_seconds=upstream.first_token_seconds,
            idle_seconds=upstream.idle_seconds,
            total_seconds=upstream.total_seconds,
            tool_calls=upstream.tools,
        )
    common: dict[str, Any] = {
        "model": upstream.model or model,
        "api_key": upstream.api_key(),
        "connect_seconds": upstream.connect_seconds,
        "first_token_seconds": upstream.first_token_seconds,
        "idle_seconds": upstream.idle_seconds,
        "total_seconds": upstream.total_seconds,
        "concurrency_max": upstream.concurrency_max,
    }
    if upstream.provider == "anthropic":
        return AnthropicProvider(base_url=str(upstream.base_url or BASE_URL), **common)
    return OpenAIProvider(base_url=str(upstream.base_url), usage_chunk=upstream.usage_chunk, **common)
