"""The composition root: the only module that knows all the others."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from app.api import docs, errors, health, native, openai
from app.api.context import Context
from app.catalog import Catalog, Upstream, load_catalog
from app.middleware.access_log import AccessLogMiddleware
from app.middleware.errors import ErrorsMiddleware
from app.middleware.request_id import RequestIdMiddleware
from app.observability.logging import configure_logging
from app.providers.base import Provider
from app.providers.openai import OpenAIProvider
from app.providers.simulator import Simulator
from app.settings import Settings, load_settings
from app.streams.producer import Producers
from app.version import VERSION


def create_app(settings: Settings | None = None) -> FastAPI:
    """The application, ready to be served by one worker.

    Raises:
        SettingsError, CatalogError: the environment or the models file is wrong.
    """
    settings = settings or load_settings()
    configure_logging(settings.log_level)
    providers = _providers(load_catalog(settings.config))
    producers = Producers(settings.stream_seconds_max)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        yield
        # Producers first: each closes its upstream's response before the pool under it goes.
        await producers.aclose()
        for provider in providers.values():
            await provider.aclose()

    app = FastAPI(
        title="Sluice",
        version=VERSION,
        summary="Streams of tokens, as they are made.",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
    )
    app.state.context = Context(
        providers=providers,
        producers=producers,
        heartbeat_seconds=settings.heartbeat_seconds,
        send_seconds=settings.send_seconds,
        simulator_options=settings.environment == "development",
    )
    app.state.end_streams = producers.end_all
    for router in (native.router, openai.router, health.router, docs.router):
        app.include_router(router)
    docs.mount_assets(app)
    errors.install(app)
    # The one added last is the outermost.
    app.add_middleware(ErrorsMiddleware, answer=errors.internal_error)
    app.add_middleware(AccessLogMiddleware)
    app.add_middleware(RequestIdMiddleware)
    return app


def _providers(catalog: Catalog) -> dict[str, Provider]:
    return {name: _provider(model.upstreams[0], name) for name, model in catalog.models.items()}


def _provider(upstream: Upstream, name: str) -> Provider:
    if upstream.provider == "simulator":
        return Simulator(upstream.idle_seconds, upstream.first_token_seconds)
    return OpenAIProvider(
        base_url=str(upstream.base_url),
        model=upstream.model or name,
        api_key=upstream.api_key(),
        connect_seconds=upstream.connect_seconds,
        first_token_seconds=upstream.first_token_seconds,
        idle_seconds=upstream.idle_seconds,
        total_seconds=upstream.total_seconds,
        concurrency_max=upstream.concurrency_max,
    )
