"""An upstream's error, as its HTTP answer or inside its stream, made into one that a caller may see.

A caller learns what is wrong with the request, never where it went: hosts, addresses, keys and tracebacks stay out of
the message. The whole of it, keys apart, is the error's `detail`.
"""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from math import ceil
from typing import Any

import msgspec

from app.errors import UpstreamRejected

MESSAGE_CHARS_MAX = 500
RETRY_AFTER_SECONDS_MAX = 120  # a caller that is told to wait longer gives up anyway, or waits on a mistake
RAW_CHARS_MAX = 4000  # of a message before it is looked through

HIDDEN = "[hidden]"
_PRIVATE = re.compile(
    r"""
      \b[a-z][a-z0-9+.-]{0,20}://\S+                        # URLs
    | \b\d{1,3}(?:\.\d{1,3}){3}(?::\d+)?\b                  # IPv4, with a port
    | \[[0-9a-f:.]{2,45}\](?::\d+)?                         # IPv6 in brackets
    | \b[\w.-]{1,200}\.(?:svc|local|internal|lan|cluster)\b\S*  # names inside a cluster or network
    | \b(?:bearer\s+|sk-|pk-|rk-|key-)[\w.*~+/=-]{6,}       # keys, whole or masked by their issuer
    """,
    re.VERBOSE | re.IGNORECASE,
)
_TRACEBACK = re.compile(r"Traceback \(most recent|\bFile \"[^\"]+\", line \d+|\bat \S+\(\S+:\d+\)")


# What upstreams call the two refusals that are about the request and nothing else: whoever else is asked would be asked
# to do what was refused. Their callers know the codes that OpenAI gives them.
_REFUSALS = {
    "content_filter": "content_filter",
    "content_policy_violation": "content_filter",
    "responsibleaipolicyviolation": "content_filter",
    "moderation_blocked": "content_filter",
    "context_length_exceeded": "context_length_exceeded",
    "exceed_context_size_error": "context_length_exceeded",
    "model_context_window_exceeded": "context_length_exceeded",
}
_TOO_LONG = re.compile(r"maximum context length|prompt is too long|exceeds? the (?:model's )?context", re.IGNORECASE)
# Of errors inside a stream, which have no status but the one that their names stand for.
_STATUSES = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "permission_error": 403,
    "not_found_error": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "insufficient_quota": 429,
    "overloaded_error": 503,
}


class Rejections:
    """Makes the errors of one upstream.

    Args:
        host: its name and address as configured, hidden from callers.
        key: our key for it, hidden from the log too.
    """

    def __init__(self, host: str, key: str | None) -> None:
        self._hidden = sorted({host, host.rpartition(":")[0] or host}, key=len, reverse=True)
        self._host = host
        self._key = key

    def of_answer(self, status: int, headers: Mapping[str, str], body: bytes) -> UpstreamRejected:
        """Of an answer with an error status."""
        parsed = _parse(body)
        return self._rejected(status, parsed, body, retry_after_seconds(headers))

    def of_event(self, data: bytes) -> UpstreamRejected:
        """Of an error inside a stream, or of one that came with a status of success."""
        parsed = _parse(data)
        return self._rejected(_status(parsed) or 502, parsed, data, None)

    def _rejected(self, status: int, parsed: Any, raw: bytes, retry_after: int | None) -> UpstreamRejected:
        refusal = _refusal(parsed, status)
        if refusal is not None and not 400 <= status < 500:
            status = 400  # it is the request that has to change, whatever the upstream made of it
        safe = self._safe(_message(parsed))
        # About 401 and 403 the upstream speaks of the operator's key and account, which are no business of a caller.
        if not safe or status in {401, 403}:
            safe = f"The upstream answered with status {status}."
        shown = raw[:RAW_CHARS_MAX].decode(errors="replace")
        detail = f"{self._host}: {status}: {shown}"
        if self._key:
            detail = detail.replace(self._key, HIDDEN)
        error = UpstreamRejected(status, safe, detail=detail, retry_after_seconds=retry_after)
        error.code = refusal or error.code
        return error

    def _safe(self, message: str) -> str:
        message = message[:RAW_CHARS_MAX]
        if _TRACEBACK.search(message):
            return ""
        if self._key:
            message = message.replace(self._key, HIDDEN)
        message = _PRIVATE.sub(HIDDEN, message)
        for host in self._hidden:
            message = re.sub(re.escape(host), HIDDEN, message, flags=re.IGNORECASE)
        message = " ".join("".join(c if c.isprintable() else " " for c in message).split())
        return message if len(message) <= MESSAGE_CHARS_MAX else message[: MESSAGE_CHARS_MAX - 1] + "…"


def retry_after_seconds(headers: Mapping[str, str]) -> int | None:
    """When the upstream wants to be asked again: `retry-after-ms`, else `Retry-After` as seconds or date; capped."""
    try:
        if "retry-after-ms" in headers:
            seconds = float(headers["retry-after-ms"]) / 1000
        else:
            given = headers["retry-after"].strip()
            if given.replace(".", "", 1).isascii() and given.replace(".", "", 1).isdigit():
                seconds = float(given)
            else:
                when = parsedate_to_datetime(given)
                when = when if when.tzinfo else when.replace(tzinfo=UTC)
                seconds = (when - datetime.now(UTC)).total_seconds()
        return ceil(min(max(seconds, 0), RETRY_AFTER_SECONDS_MAX))
    except (KeyError, ValueError, OverflowError):
        return None


def _parse(data: bytes) -> Any:
    """The error object, wherever the body has it; None where there is no JSON."""
    try:
        parsed = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    return parsed["error"] if isinstance(parsed, dict) and parsed.get("error") else parsed


def _message(error: Any) -> str:
    if isinstance(error, dict):
        error = next((error[name] for name in ("message", "detail") if error.get(name)), "")
    return error if isinstance(error, str) else ""


def _refusal(error: Any, status: int) -> str | None:
    """The code of a refusal that no other upstream could mend."""
    for name in _names(error):
        if name in _REFUSALS:
            return _REFUSALS[name]
    # Servers of open models only say it in words.
    if status != 429 and _TOO_LONG.search(_message(error)[:RAW_CHARS_MAX]):
        return "context_length_exceeded"
    return None


def _names(error: Any) -> list[str]:
    """What the error calls itself, in its own words and in those of whoever it was passed on from."""
    if not isinstance(error, dict):
        return []
    inner = error.get("innererror")
    values = [error.get("code"), error.get("type"), inner.get("code") if isinstance(inner, dict) else None]
    return [value.lower() for value in values if isinstance(value, str)]


def _status(error: Any) -> int | None:
    """An HTTP status among the error's fields, or the one that its names stand for."""
    if not isinstance(error, dict):
        return None
    for name in ("status", "status_code", "code"):
        value = error.get(name)
        if isinstance(value, str) and len(value) == 3 and value.isascii() and value.isdigit():
            value = int(value)
        if isinstance(value, int) and 400 <= value <= 599:
            return value
    return next((_STATUSES[name] for name in _names(error) if name in _STATUSES), None)
