"""WebSockets: `…/ws/generate`, and `…/ws/chat/{conversation_id}`, where a conversation is heard by all of its sockets.
Who may not come in is told so by an HTTP status, before anything is made for him."""

import re
from time import monotonic
from typing import Any

import structlog
from fastapi import APIRouter
from starlette.responses import JSONResponse
from starlette.websockets import WebSocket, WebSocketDisconnect

from app.api.access import identify
from app.api.context import caller, context
from app.api.errors import error_body
from app.api.origin import check_origin
from app.api.socket_session import Session
from app.api.versions import socket_announcement
from app.errors import Draining, Forbidden, InvalidRequest, SluiceError
from app.limits.declared import GENERATE, declared, tier_rates
from app.observability.figures import figures
from app.observability.metrics import REFUSED
from app.observability.noise import Noise
from app.scope import set_headers, take_opened
from app.security.principal import TicketKind

router = APIRouter(prefix="/ws")
log = structlog.get_logger("access")
noise = Noise()

# Defects of ours; each has its line.
FAILURES = frozenset({"server_error", "internal_error"})
CONVERSATION_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")


@router.websocket("/generate")
@declared.shared_limit(tier_rates, scope=GENERATE)
async def generate(websocket: WebSocket) -> None:
    """Answer prompts, one after the other."""
    await _serve(websocket, ("create", "stream"))


@router.websocket("/chat/{conversation_id}")
@declared.shared_limit(tier_rates, scope=GENERATE)
async def chat(websocket: WebSocket, conversation_id: str) -> None:
    """Take part in a conversation."""
    await _serve(websocket, ("conversation",), conversation_id)


async def _serve(websocket: WebSocket, openings: tuple[TicketKind, ...], conversation_id: str | None = None) -> None:
    started = monotonic()
    session: Session | None = None
    outcome = "server_error"
    set_headers(websocket.scope, socket_announcement(websocket.scope["path"]))
    try:
        session = await _admitted(websocket, openings, conversation_id)
        await websocket.accept()
        # A conversation is what such a ticket opens; one for a stream waits for that.
        if conversation_id is not None and (tell := take_opened(websocket.scope)) is not None:
            await tell()
        outcome = await session.run()
    except SluiceError as error:
        outcome = error.code
        figures.add(REFUSED, 1, error.code)
        await _refuse(websocket, error)
    except WebSocketDisconnect:
        outcome = "client_cancelled"
    finally:
        _log(websocket, outcome, session, monotonic() - started)


def _log(websocket: WebSocket, outcome: str, session: Session | None, seconds: float) -> None:
    fields: dict[str, Any] = {}
    if not (session and session.begun) and outcome not in FAILURES:
        # Clients that come and go in a circle, or are turned away again and again.
        unlogged = noise.admits((websocket.scope["route"].path, outcome))
        if unlogged is None:
            return
        if unlogged:
            fields["unlogged"] = unlogged
    log.info(
        "socket",
        path=websocket.scope["path"],
        outcome=outcome,
        client=_client(websocket),
        duration_ms=round(seconds * 1000, 1),
        streams=session.streams if session else 0,
        tokens=session.tokens if session else 0,
        **fields,
    )


async def _admitted(websocket: WebSocket, openings: tuple[TicketKind, ...], conversation_id: str | None) -> Session:
    """A session for whoever asks.

    Raises:
        SluiceError: there is none for him.
    """
    ctx = context(websocket)
    check_origin(websocket.headers, ctx.origins)
    # A worker that stops alone still takes what comes on connections that NGINX had open, and sends it on soon.
    if ctx.streams.released or ctx.streams.pod_draining():
        raise Draining("The server is shutting down.", retry_after_seconds=1)
    if conversation_id is not None and not CONVERSATION_ID.fullmatch(conversation_id):
        raise InvalidRequest("A conversation's name is 1 to 64 letters, digits, dots, underscores and hyphens.")
    opening = (await identify(websocket, openings)).opening
    if opening is not None and opening.kind == "conversation" and opening.target != conversation_id:
        raise Forbidden("The ticket is for something else.")
    return Session(ctx, caller(websocket), websocket, conversation_id)


async def _refuse(websocket: WebSocket, error: SluiceError) -> None:
    failed = error.as_event()
    headers = {} if failed.retry_after_seconds is None else {"Retry-After": str(failed.retry_after_seconds)}
    await websocket.send_denial_response(JSONResponse(error_body(failed, websocket.scope), failed.status, headers))


def _client(websocket: WebSocket) -> str | None:
    """As the access log has it."""
    if websocket.client is not None and websocket.client.host:
        return websocket.client.host
    return websocket.headers.get("x-real-ip")
