"""Tool calls put together again from the deltas that streamed them."""

from collections.abc import Iterable
from typing import Any

import msgspec

from app.events import Event, Token


def tool_calls(events: Iterable[Event]) -> list[dict[str, Any]]:
    """The complete calls, in the order of their index; arguments come in pieces, all else once."""
    calls: dict[int, dict[str, Any]] = {}
    for event in events:
        if type(event) is Token and event.kind == "tool_call":
            for delta in msgspec.json.decode(event.text):
                _merge(calls, delta)
    return [calls[index] for index in sorted(calls)]


def _merge(calls: dict[int, dict[str, Any]], delta: dict[str, Any]) -> None:
    call = calls.setdefault(delta.get("index", 0), {"type": "function", "function": {"name": "", "arguments": ""}})
    function = delta.get("function") or {}
    call["function"]["arguments"] += function.get("arguments") or ""
    call["function"]["name"] += function.get("name") or ""
    call |= {key: delta[key] for key in ("id", "type", "extra_content") if delta.get(key)}
