"""Probes, and the front door for people."""

from time import monotonic
from typing import Any

from fastapi import APIRouter, Response

from app.api.context import Ctx
from app.api.schemas import Health
from app.version import VERSION

router = APIRouter(tags=["health"])
_started = monotonic()


@router.get("/livez")
@router.head("/livez", include_in_schema=False)
async def livez() -> dict[str, str]:
    """The event loop turns; depends on nothing else, so that no other system's outage restarts us."""
    return {"status": "ok"}


@router.head("/readyz", include_in_schema=False)
@router.get("/readyz", responses={503: {"description": "Takes no new streams."}})
async def readyz(response: Response, ctx: Ctx) -> dict[str, str]:
    """New streams are welcome here."""
    if ctx.streams.pod_draining():
        response.status_code = 503
        return {"status": "draining"}
    return {"status": "ready"}


@router.get("/health")
@router.head("/health", include_in_schema=False)
async def health(ctx: Ctx) -> Health:
    """How this worker is, for people."""
    return Health(
        status="draining" if ctx.streams.draining or ctx.streams.pod_draining() else "ok",
        uptime_seconds=round(monotonic() - _started, 1),
        version=VERSION,
        checks={
            "event_loop": "ok",
            "stream_log": "ok" if ctx.streams.committer.available else "unavailable",
            "active_streams": str(len(ctx.streams.owned)),
        },
    )


HOME = {
    "name": "sluice",
    "version": VERSION,
    "docs": "/docs",
    "playground": "/playground",
    "generate": "/api/v1/generate",
    "openai": "/v1",
    "anthropic": "/v1/messages",
    "health": "/health",
}


@router.get("/")
async def root() -> dict[str, Any]:
    """What this is, and where to go on."""
    return HOME
