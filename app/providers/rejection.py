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
        message = _message(_parse(body))
        return self._rejected(status, message, body, retry_after_seconds(headers))

    def of_event(self, data: bytes) -> UpstreamRejected:
        """Of an error inside a stream, or of one that came with a status of success."""
        parsed = _parse(data)
        return self._rejected(_status(parsed) or 502, _message(parsed), data, None)

    def _rejected(self, status: int, message: str, raw: bytes, retry_after: int | None) -> UpstreamRejected:
        safe = self._safe(message)
        # About 401 and 403 the upstream speaks of the operator's key and account, which are no business of a caller.
        if not safe or status in {401, 403}:
            safe = f"The upstream answered with status {status}."
        shown = raw[:RAW_CHARS_MAX].decode(errors="replace")
        detail = f"{self._host}: {status}: {shown}"
        if self._key:
            detail = detail.replace(self._key, HIDDEN)
        return UpstreamRejected(status, safe, detail=detail, retry_after_seconds=retry_after)

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


def _status(error: Any) -> int | None:
    """An HTTP status among the error's fields; codes such as `rate_limit_exceeded` are none."""
    if not isinstance(error, dict):
        return None
    for name in ("status", "status_code", "code"):
        value = error.get(name)
        if isinstance(value, str) and len(value) == 3 and value.isascii() and value.isdigit():
            value = int(value)
        if isinstance(value, int) and 400 <= value <= 599:
            return value
    return None
