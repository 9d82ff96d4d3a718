"""Tokens in return for keys and passwords (OAuth 2.0's token endpoint), tickets in return for tokens, and who am I."""

import base64
import binascii
import secrets
from hashlib import sha256
from typing import Any
from urllib.parse import parse_qsl, unquote_plus

from fastapi import APIRouter, Depends, Request
from starlette.responses import JSONResponse, Response

from app.api.access import Access, Guarded, Known, access, by_address, counted
from app.api.auth_schemas import IdentityAnswer, TicketAnswer, TicketBody, TokenAnswer, TokenRefusal
from app.api.context import Ctx
from app.api.openapi import CREDENTIALS_IF_ANY, NO_CREDENTIALS, Responses, native_errors
from app.limits.account import Limit
from app.limits.declared import declared, tier_rates
from app.security.authenticator import ANONYMOUS
from app.security.principal import Opening, Principal
from app.security.tickets import OPEN_SECONDS_MAX

# Whoever asks these is not known yet.
public = APIRouter(prefix="/auth", tags=["auth"])
router = APIRouter(tags=["auth"], route_class=Guarded)

FORM_BYTES_MAX = 16 * 1024
FORM_FIELDS_MAX = 20
# For one address, behind which may be many clients with a key each; a password is guessed by trying one name often.
ADDRESS_RATE = "60/minute"
NAME_LIMIT = Limit("login/60", 60_000, 10)
_NO_STORE = {"Cache-Control": "no-store", "Pragma": "no-cache"}
_FORM = {
    "requestBody": {
        "required": True,
        "content": {
            "application/x-www-form-urlencoded": {
                "schema": {
                    "type": "object",
                    "required": ["grant_type"],
                    "properties": {
                        "grant_type": {"type": "string", "enum": ["client_credentials", "password"]},
                        "client_id": {"type": "string"},
                        "client_secret": {"type": "string", "description": "The API key; or by HTTP Basic."},
                        "username": {"type": "string"},
                        "password": {"type": "string"},
                    },
                },
            }
        },
    }
}


_REFUSALS: Responses = {
    400: {"model": TokenRefusal, "description": "Refused."},
    401: {"model": TokenRefusal, "description": "The key is not valid."},
    413: {"model": TokenRefusal, "description": "Larger than any such request."},
}


class Refused(Exception):
    """The request for a token is refused; RFC 6749, section 5.2."""

    def __init__(self, error: str, description: str, status: int = 400) -> None:
        super().__init__(description)
        self.error = error
        self.description = description
        self.status = status


@public.post(
    "/token",
    response_model=TokenAnswer,
    responses=native_errors(429, 503) | _REFUSALS,
    openapi_extra=_FORM | NO_CREDENTIALS,
    dependencies=[Depends(counted)],
)
@declared.limit(ADDRESS_RATE, key_func=by_address)
async def token(request: Request) -> Response:
    """A short token for an API key (`client_credentials`) or a user's password (`password`)."""
    has = access(request)
    try:
        if has.own_tokens is None:
            raise Refused("invalid_request", "Nobody needs a token here.")
        form = await _form(request)
        kind = form.get("grant_type")
        if kind == "client_credentials":
            found = await _by_key(request, has, form)
        elif kind == "password":
            found = await _by_password(request, has, form)
        else:
            raise Refused("unsupported_grant_type", "grant_type is client_credentials or password.")
    except Refused as refused:
        headers = _NO_STORE | ({"WWW-Authenticate": 'Basic realm="sluice"'} if refused.status == 401 else {})
        answer = TokenRefusal(error=refused.error, error_description=refused.description)
        return JSONResponse(answer.model_dump(), refused.status, headers)
    issued, seconds = has.own_tokens.issue(found)
    return JSONResponse(TokenAnswer(access_token=issued, expires_in=seconds).model_dump(), headers=_NO_STORE)


@public.get("/status", responses=native_errors(401, 503), openapi_extra=CREDENTIALS_IF_ANY)
async def status(request: Request, response: Response) -> IdentityAnswer:
    """Who asks, as far as this server knows."""
    authenticator = access(request).authenticator
    response.headers["Cache-Control"] = "no-store"
    known = await authenticator.identify_any(request.scope)
    if known is None or known is ANONYMOUS:
        return IdentityAnswer(
            authenticated=False,
            required=authenticator.required,
            principal=None if known is None else known.account,
            tier=None,
            expires_at=None,
            limits=None,
        )
    return IdentityAnswer(
        authenticated=True,
        required=authenticator.required,
        principal=known.account,
        tier=known.tier_name,
        expires_at=int(known.expires_at) or None,
        limits=known.tier,
    )


@router.post("/tickets", responses=native_errors(400, 401, 404, 422, 429, 503), dependencies=[Depends(counted)])
@declared.shared_limit(tier_rates, scope="tickets")
async def tickets(request: Request, body: TicketBody, who: Known, ctx: Ctx, response: Response) -> TicketAnswer:
    """A ticket for a client that cannot set headers: a browser's `EventSource` or `WebSocket`."""
    kind, _, target = body.scope.partition(":")
    if kind == "stream":
        await ctx.streams.status(target, who.account)
    elif kind == "create":
        target = secrets.token_urlsafe(18)
    opening = Opening(kind, target)  # type: ignore[arg-type] # as the pattern says
    response.headers["Cache-Control"] = "no-store"
    ticket = await access(request).authenticator.tickets.issue(who, opening)
    return TicketAnswer(ticket=ticket, expires_in_seconds=OPEN_SECONDS_MAX)


async def _by_key(request: Request, has: Access, form: dict[str, str]) -> Principal:
    key = _client_secret(request) or form.get("client_secret") or request.headers.get("x-api-key")
    if not key:
        raise Refused("invalid_client", "client_secret is the API key.", 401)
    found = await has.authenticator.key_owner(key)
    if found is None:
        raise Refused("invalid_client", "The API key is not valid.", 401)
    return found


async def _by_password(request: Request, has: Access, form: dict[str, str]) -> Principal:
    name, password = form.get("username", ""), form.get("password", "")
    if has.users is None:
        raise Refused("unsupported_grant_type", "There are no users here.")
    if not name or not password:
        raise Refused("invalid_request", "username and password are needed.")
    # Each name by its hash: there are as many as somebody likes to think of.
    account = f"login:{sha256(name.encode()).hexdigest()[:32]}"
    await has.quotas.count(request.scope, account, (NAME_LIMIT,))
    found = await has.passwords.check(has.users.value, has.quotas.tiers, name, password)
    if found is None:
        raise Refused("invalid_grant", "The name or the password is wrong.")
    return found


def _client_secret(request: Request) -> str | None:
    scheme, _, value = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return value.strip()
    if scheme.lower() != "basic":
        return None
    try:
        _, _, secret = base64.b64decode(value.strip(), validate=True).decode().partition(":")
    except (binascii.Error, ValueError):
        raise Refused("invalid_client", "Authorization is not what it says.", 401) from None
    return unquote_plus(secret)


async def _form(request: Request) -> dict[str, str]:
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if content_type != "application/x-www-form-urlencoded":
        raise Refused("invalid_request", "Content-Type is application/x-www-form-urlencoded.")
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > FORM_BYTES_MAX:
            raise Refused("invalid_request", f"More than {FORM_BYTES_MAX} bytes.", 413)
    try:
        pairs = parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=FORM_FIELDS_MAX)
    except ValueError:
        raise Refused("invalid_request", "Not a form.") from None
    form: dict[str, Any] = dict(pairs)
    if len(form) < len(pairs):
        raise Refused("invalid_request", "A field is there twice.")
    return form
