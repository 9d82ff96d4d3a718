"""The composition root: the only module that knows all the others."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import structlog
from fastapi import FastAPI
from gunicorn.arbiter import Arbiter

from app.admission.places import Places
from app.admission.pulse import Pulse
from app.api import (
    aliases,
    anthropic,
    auth,
    docs,
    errors,
    health,
    native,
    native_v2,
    openai,
    openapi,
    playground,
    responses,
    sockets,
    tasks,
)
from app.api import conversations as conversations_api
from app.api import streams as streams_api
from app.api.context import Context
from app.api.versions import VERSIONS
from app.catalog import CatalogError, adopted, load_catalog
from app.entrance import Entrance, adopted_credentials, read_credentials
from app.errors import LogUnavailable, ModelNotFound
from app.garbage import Garbage
from app.middleware.access_log import AccessLogMiddleware
from app.middleware.body_limit import BodyLimitMiddleware
from app.middleware.cors import SitesMiddleware
from app.middleware.drain import DrainMiddleware
from app.middleware.errors import ErrorsMiddleware
from app.middleware.hosts import HostsMiddleware
from app.middleware.request_id import RequestIdMiddleware
from app.middleware.security_headers import SecurityHeadersMiddleware
from app.observability import metrics, tracing
from app.observability.figures import figures
from app.observability.logging import configure_logging
from app.pod import Identity
from app.routing.batch import TASKS, Batch
from app.routing.maker import Maker
from app.routing.route import Route
from app.routing.routes import routes_of
from app.sampler import Sampler
from app.security.withdrawal import Withdrawal
from app.settings import Settings, load_settings
from app.streams.backends import is_shared, open_backend
from app.streams.books import Books
from app.streams.conversations import Conversations
from app.streams.drain import Drain
from app.streams.follower import Follower
from app.streams.keeper import Keeper
from app.streams.log import Backend, OnDisconnect, StreamRecord
from app.streams.opener import Opener
from app.streams.reader_response import Terms
from app.streams.registry import Streams
from app.streams.unread import Unread
from app.version import VERSION

log = structlog.get_logger(__name__)


def create_app(settings: Settings | None = None) -> FastAPI:
    """The application, ready to be served by one worker, who says in `app.state.identity` who it is.

    Raises:
        SettingsError, CatalogError: the environment or the models file is wrong.
        SystemExit: the models file names a program that cannot be used here.
    """
    settings = settings or load_settings()
    lines = configure_logging(settings.log_level)
    # Under Gunicorn the master has read the file: a worker that is born between two reloads must not read another one.
    catalog = adopted() or load_catalog(settings.config)
    credentials = adopted_credentials() or read_credentials(settings, catalog)
    try:
        routes = routes_of(catalog, queue_seconds_max=settings.heartbeat_seconds / 2)
    except CatalogError as error:
        # One line that says why, instead of a traceback; Gunicorn stops when a worker cannot start.
        log.critical("cannot use the models file", reason=str(error))
        raise SystemExit(Arbiter.WORKER_BOOT_ERROR) from None

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        identity: Identity = getattr(app.state, "identity", None) or Identity.alone()
        url = settings.stream_log_url
        backend = await _open_log(url, settings)
        places = _places(settings)
        places.waited = figures.tally(metrics.ADMISSION_WAIT).add
        places.changed = partial(identity.pod.set_active, identity.age)
        pulse = app.state.pulse = Pulse(
            places, settings.streams_max * settings.workers, lambda: identity.pod.active() - places.active
        )
        pulse.lagged = figures.tally(metrics.LOOP_LAG).add
        streams = Streams(
            backend,
            identity.owner,
            partial(_maker, routes, settings),
            settings.stream_seconds_max,
            settings.stream_bytes_max,
            pod_draining=lambda: identity.pod.draining,
            places=places,
        )
        opener = Opener(streams, degrade=settings.without_log == "degrade")
        entrance = await _open_entrance(Entrance(settings, catalog, credentials), streams, opener)
        app.state.access = entrance.access
        streams.accounts += [
            Books(is_shared(url), lambda: identity.pod.draining).enter,
            entrance.access.quotas.settle,
        ]
        streams.driver.extend = entrance.access.quotas.extend
        follower = Follower(streams, settings.lease_seconds)
        streams.follow = follower.follow
        streams.unread = Unread(streams, settings.lease_seconds).decide
        drain = app.state.drain = Drain(streams, settings.derived_waits()["drain_spread_seconds"], is_shared(url))
        withdrawal = Withdrawal(lambda: drain.connections, entrance.access.authenticator.owner_of)
        conversations = Conversations(
            streams,
            settings.conversation_messages_max,
            settings.conversation_bytes_max,
            settings.stream_ttl_seconds,
        )
        app.state.context = _context(
            settings, tuple(routes), _terms(settings, streams, drain), opener, entrance, conversations
        )
        keeper = Keeper(streams, follower, settings.lease_seconds, identity.newly_dead)
        await keeper.start()
        sampler = Sampler(streams, drain, routes, entrance.limiter, lines, getattr(app.state, "figure_files", None))
        figures.allow("tenant", _names(settings.metrics_tenants))
        garbage = Garbage(lambda: len(streams.live))
        duties = [
            asyncio.create_task(duty(), name="duty") for duty in (keeper.run, pulse.run, withdrawal.run, garbage.run)
        ]
        sampling = asyncio.create_task(sampler.run(), name="sampler")
        yield
        # What is produced first, since it writes to the log and holds upstreams' connections; then what is under it.
        drain.begin()
        await drain.finish()
        for duty in duties:
            duty.cancel()
        await conversations.aclose()
        await streams.committer.aclose()
        await entrance.aclose()
        for route in routes.values():
            await route.aclose()
        await backend.aclose()
        sampling.cancel()
        sampler.write()
        await tracing.aclose()

    app = FastAPI(
        title="Sluice",
        version=VERSION,
        summary="Streams of tokens, as they are made.",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        # `tracing` traces. FastAPI's own telemetry would look for a provider in the environment at each request.
        telemetry={"tracing": False, "metrics": False, "logs": False},
    )
    _include_routes(app)
    openapi.complete(app, closed=credentials.own_tokens is not None)
    errors.install(app)
    _add_middleware(app, settings)
    return app


def _include_routes(app: FastAPI) -> None:
    surfaces = (openai, responses, anthropic, native, native_v2, aliases, health, docs, playground)
    # Not included, since they have their whole paths: FastAPI looks through an included router twice a request. And
    # before the one that is there, of the OpenAPI document, which every request would be compared with.
    app.router.routes[:0] = [route for surface in surfaces for route in surface.router.routes]
    parts = (streams_api.router, streams_api.ticketed, tasks.router, tasks.ticketed, auth.router, auth.public)
    for version in VERSIONS:
        for router in (native.ticketed, sockets.router, conversations_api.router, *parts):
            app.include_router(router, prefix=version)
    app.include_router(sockets.router)  # a path of older clients
    docs.mount_assets(app)


def _add_middleware(app: FastAPI, settings: Settings) -> None:
    # The one added last is the outermost.
    app.add_middleware(ErrorsMiddleware, answer=errors.internal_error)
    app.add_middleware(DrainMiddleware, draining=lambda: _pod_drains(app), answer=errors.draining)
    if settings.cors_allowed:
        app.add_middleware(SitesMiddleware, origins=settings.cors_allowed, credentials=settings.cors_credentials)
    app.add_middleware(BodyLimitMiddleware, bytes_max=settings.body_bytes_max)
    if settings.hosts:
        app.add_middleware(HostsMiddleware, hosts=settings.hosts, answer=errors.unknown_host)
    app.add_middleware(SecurityHeadersMiddleware)
    app.add_middleware(AccessLogMiddleware)
    app.add_middleware(RequestIdMiddleware)


async def _open_log(url: str, settings: Settings) -> Backend:
    try:
        return await open_backend(
            url, settings.log_bytes_max, settings.stream_bytes_max, settings.stream_ttl_seconds, settings.lease_seconds
        )
    except LogUnavailable as error:
        # Uvicorn would print a traceback.
        log.critical("cannot open the stream log", reason=error.message, detail=error.detail)
        raise SystemExit(Arbiter.WORKER_BOOT_ERROR) from None


async def _open_entrance(entrance: Entrance, streams: Streams, opener: Opener) -> Entrance:
    def held() -> list[tuple[str, str]]:
        # Those that wait too: else a wait for a place would cost the slot that the limits gave.
        records = [*opener.queued.values(), *(live.record for live in streams.owned)]
        grants = [record.grant for record in records]
        return [(grant.account, grant.slot) for grant in grants if grant is not None and grant.slot]

    try:
        return await entrance.open(held)
    except LogUnavailable as error:
        log.critical("cannot open the store of limits", reason=error.message, detail=error.detail)
        raise SystemExit(Arbiter.WORKER_BOOT_ERROR) from None


def _pod_drains(app: FastAPI) -> bool:
    identity: Identity | None = getattr(app.state, "identity", None)
    return identity is not None and identity.pod.draining


def _places(settings: Settings) -> Places:
    # More than that in the queue would hardly get a place in time: half of the streams do not end within a few seconds.
    waiting_max = max(8, settings.streams_max // 2)
    return Places(settings.streams_max, waiting_max, settings.derived_waits()["admission_seconds"])


def _terms(settings: Settings, streams: Streams, drain: Drain) -> Terms:
    return Terms(
        streams=streams,
        drain=drain,
        heartbeat_seconds=settings.heartbeat_seconds,
        send_seconds=settings.send_seconds,
        age_seconds_max=settings.age_seconds_max,
        error_body=errors.error_body,
    )


def _context(
    settings: Settings,
    models: tuple[str, ...],
    terms: Terms,
    opener: Opener,
    entrance: Entrance,
    conversations: Conversations,
) -> Context:
    return Context(
        terms=terms,
        opener=opener,
        quotas=entrance.access.quotas,
        conversations=conversations,
        addresses=entrance.access.authenticator.addresses,
        origins=settings.cors_allowed,
        models=models,
        on_disconnect=_on_disconnect(settings),
        on_disconnect_max=settings.on_disconnect_max,
        grace_seconds=settings.grace_seconds,
        simulator_options=settings.environment == "development",
    )


def _on_disconnect(settings: Settings) -> dict[str, OnDisconnect]:
    policies = {
        "native": settings.on_disconnect,
        "openai": settings.on_disconnect_openai,
        "anthropic": settings.on_disconnect_anthropic,
        "responses": settings.on_disconnect_responses,
    }
    return {surface: policy for surface, policy in policies.items() if policy is not None}


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _maker(routes: dict[str, Route], settings: Settings, record: StreamRecord) -> Maker:
    model = record.request.model
    if model not in routes:
        raise ModelNotFound(f"There is no model {model[:100]!r}.")
    if record.surface != TASKS:
        return routes[model]
    return Batch(
        routes[model],
        prompt_seconds_max=settings.stream_seconds_max,
        prompt_bytes_max=settings.stream_bytes_max,
        seconds_max=settings.task_seconds_max,
        tokens_max=record.grant.output_tokens_max if record.grant is not None else 0,
    )
