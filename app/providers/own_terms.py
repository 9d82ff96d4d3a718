"""A request in the terms of another protocol than OpenAI's, carried beside its translation.

A surface of another protocol translates what it is asked, for any upstream to answer; and keeps the original, so that
an upstream of its own protocol gets all of it. What the translation had to leave out is listed, by field: only an
upstream that takes the translation cannot carry that, and says so.
"""

from typing import Any

from app.errors import InvalidRequest
from app.providers.base import GenerationRequest

# Only Anthropic's surface sets this header, from the caller's: no field of a body can claim to be the original.
ANTHROPIC_MARK = "anthropic-version"
ANTHROPIC_BETA = "anthropic-beta"
_ORIGINAL = "anthropic"


def with_original(
    extra: dict[str, Any], messages: list[dict[str, Any]], body: dict[str, Any], uncarried: list[str]
) -> dict[str, Any]:
    """The `extra` of a request that was translated from `body`.

    Args:
        messages: the translated ones.
        uncarried: for each field that the translation leaves out, its name and what is wrong with it.
    """
    return {**extra, _ORIGINAL: {"body": body, "messages": len(messages), "uncarried": uncarried}}


def original(request: GenerationRequest) -> dict[str, Any] | None:
    """The body in its own terms; None where the request has none."""
    if ANTHROPIC_MARK not in request.headers:
        return None
    kept = request.extra[_ORIGINAL]
    body: dict[str, Any] = kept["body"]
    # Whoever wants an answer to be continued has added its beginning behind the messages that were translated.
    return {**body, "messages": body["messages"] + request.messages[kept["messages"] :]}


def translated(request: GenerationRequest) -> dict[str, Any]:
    """The request's `extra` for an upstream that speaks OpenAI's protocol.

    Raises:
        InvalidRequest: something in the request cannot be said in it.
    """
    if ANTHROPIC_MARK not in request.headers:
        return request.extra
    extra = dict(request.extra)
    if uncarried := extra.pop(_ORIGINAL)["uncarried"]:
        raise InvalidRequest(f"{uncarried[0]} (this model's upstream speaks OpenAI's protocol)")
    return extra
