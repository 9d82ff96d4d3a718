"""Errors as answers: the one place that knows each surface's shape of them."""

from typing import Any

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.types import Scope

from app.errors import Internal, InvalidRequest, SluiceError
from app.events import Failed
from app.scope import note, request_id
from app.streams.sse import openai_error

log = structlog.get_logger(__name__)

_CODES = {404: "not_found", 405: "method_not_allowed", 413: "limit_exceeded", 415: "unsupported_media_type"}


def error_body(failed: Failed, scope: Scope, details: list[dict[str, Any]] | None = None) -> dict[str, Any]:
    """The error as JSON, in the shape of the surface that `scope` asks."""
    if scope["path"].startswith("/v1/"):
        error = openai_error(failed)
        error["param"] = details[0]["field"] if details else None
        return {"error": error | {"request_id": request_id(scope)}}
    error = {
        "code": failed.code,
        "message": failed.message,
        "retryable": failed.retryable,
        "request_id": request_id(scope),
    }
    return {"error": error | ({"details": details} if details else {})}


def install(app: FastAPI) -> None:
    """Answer every exception that reaches the routes' edge."""
    app.add_exception_handler(SluiceError, _sluice_error)
    app.add_exception_handler(RequestValidationError, _validation_error)
    app.add_exception_handler(HTTPException, _http_exception)


def internal_error(scope: Scope) -> JSONResponse:
    """The answer to a defect of ours."""
    return _answer(Internal("The server failed.").as_event(), scope)


def _answer(failed: Failed, scope: Scope, details: list[dict[str, Any]] | None = None) -> JSONResponse:
    note(scope)["outcome"] = failed.code
    headers = {} if failed.retry_after_seconds is None else {"Retry-After": str(failed.retry_after_seconds)}
    return JSONResponse(error_body(failed, scope, details), failed.status, headers)


async def _sluice_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, SluiceError)
    return _answer(error.as_event(), request.scope)


async def _validation_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    details = [{"field": _field(item["loc"]), "message": item["msg"]} for item in error.errors()[:20]]
    first = details[0]
    message = f"{first['field']}: {first['message']}" if first["field"] else str(first["message"])
    # OpenAI's API says 400 to what FastAPI's say 422 to; the SDK has an exception for each.
    status = 400 if request.url.path.startswith("/v1/") else 422
    return _answer(Failed(InvalidRequest.code, message, status, retryable=False), request.scope, details)


def _field(location: tuple[int | str, ...]) -> str:
    """`messages.0.role` for ("body", "messages", 0, "role")."""
    return ".".join(str(part) for part in location[1:])


async def _http_exception(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    code = _CODES.get(error.status_code, "invalid_request" if error.status_code < 500 else "internal_error")
    failed = Failed(code, str(error.detail), error.status_code, error.status_code >= 500)
    answer = _answer(failed, request.scope)
    answer.headers.update(error.headers or {})
    return answer
