"""OpenAI's chat messages as the turns of Anthropic's: typed blocks, the tools' results among the user's."""

import json
import re
from typing import Any

from app.errors import InvalidRequest

Block = dict[str, Any]
_DATA_URL = re.compile(r"data:([\w.+-]+/[\w.+-]+);base64,(.*)", re.DOTALL)
_NOT_OF_AN_ID = re.compile(r"[^A-Za-z0-9_-]")


def turns(messages: list[dict[str, Any]], first: int) -> list[dict[str, Any]]:
    """The messages from `first` on; those of one side that follow each other become one turn.

    Raises:
        InvalidRequest: a part cannot be carried.
    """
    found: list[dict[str, Any]] = []
    for at in range(first, len(messages)):
        message, field = messages[at], f"messages.{at}"
        role = message["role"]
        if role == "assistant":
            side, blocks = "assistant", _said(message, field)
        elif role == "tool":
            side, blocks = "user", [_result(message, field)]
        elif role == "user":
            side, blocks = "user", blocks_of(message.get("content"), field)
        else:
            raise refused(f"{field}.role", f"{role!r} cannot be carried behind the first user's message")
        if found and found[-1]["role"] == side:
            found[-1]["content"] += blocks
        elif blocks or side == "user":
            found.append({"role": side, "content": blocks})
    for turn in found:
        if len(turn["content"]) == 1 and turn["content"][0].keys() == {"type", "text"}:
            turn["content"] = turn["content"][0]["text"]
    return found


def blocks_of(content: Any, field: str) -> list[Block]:
    """A message's content; empty texts, which the API refuses, are left out.

    Raises:
        InvalidRequest: a part cannot be carried.
    """
    parts = [{"type": "text", "text": content}] if isinstance(content, str) else content or []
    blocks = [_block(part, f"{field}.content.{at}") for at, part in enumerate(parts)]
    return [block for block in blocks if block != {"type": "text", "text": ""}]


def _said(message: dict[str, Any], field: str) -> list[Block]:
    """What the model said: thoughts with their proof, text, calls."""
    if message.get("function_call") is not None:
        raise refused(f"{field}.function_call", "cannot be carried; tool_calls can")
    blocks = blocks_of(message.get("content"), field)
    for at, call in enumerate(listed(message.get("tool_calls"), f"{field}.tool_calls")):
        use = _call(call, f"{field}.tool_calls.{at}")
        thinking = _thinking(call)
        blocks = thinking + blocks if at == 0 else blocks + thinking
        blocks.append(use)
    return blocks


def _thinking(call: dict[str, Any]) -> list[Block]:
    """What the model thought before this call, as `MessageStream` left it there."""
    found = _fields(_fields(call, "extra_content"), "anthropic").get("thinking")
    return [block for block in found if isinstance(block, dict)] if isinstance(found, list) else []


def _call(call: Any, field: str) -> Block:
    function = _fields(call, "function")
    if not isinstance(function.get("name"), str):
        raise refused(field, "only functions can be carried")
    try:
        arguments = json.loads(function.get("arguments") or "{}")
    except (ValueError, TypeError):
        arguments = None
    if not isinstance(arguments, dict):
        raise refused(f"{field}.function.arguments", "not a JSON object")
    return {"type": "tool_use", "id": _id(call.get("id")), "name": function["name"], "input": arguments}


def _result(message: dict[str, Any], field: str) -> Block:
    content = message.get("content")
    result = {"type": "tool_result", "tool_use_id": _id(message.get("tool_call_id"))}
    return result | {"content": content if isinstance(content, str) else blocks_of(content, field)}


def _id(value: Any) -> str:
    """An id as the API takes it: other servers' have dots and colons, alike in the call and in its result."""
    return _NOT_OF_AN_ID.sub("_", str(value or "call"))


def _block(part: dict[str, Any], field: str) -> Block:
    kind = part.get("type")
    block: Block
    if kind in ("text", "refusal"):
        block = {"type": "text", "text": part.get(kind) or ""}
    elif kind == "image_url":
        image = part.get("image_url")
        block = {"type": "image", "source": _source(image.get("url") if isinstance(image, dict) else None, field)}
    elif kind == "file":
        file = part.get("file")
        block = {
            "type": "document",
            "source": _source(file.get("file_data") if isinstance(file, dict) else None, field),
        }
        if isinstance(file, dict) and file.get("filename"):
            block["title"] = file["filename"]
    else:
        raise refused(f"{field}.type", f"{str(kind)[:100]!r} cannot be carried")
    # OpenAI's API has no such field; those who cache prompts through it have agreed on Anthropic's.
    return block | ({"cache_control": part["cache_control"]} if part.get("cache_control") else {})


def _fields(part: Any, kind: str) -> dict[str, Any]:
    """The object in a field of what may be anything; empty where there is none."""
    value = part.get(kind) if isinstance(part, dict) else None
    return value if isinstance(value, dict) else {}


def _source(url: Any, field: str) -> dict[str, Any]:
    """Where an image's or a document's bytes are."""
    if isinstance(url, str):
        if found := _DATA_URL.fullmatch(url):
            return {"type": "base64", "media_type": found[1], "data": found[2]}
        if url.startswith(("https://", "http://")):
            return {"type": "url", "url": url}
    raise refused(field, "neither a URL nor a base64 data URL")


def listed(value: Any, field: str) -> list[Any]:
    """What should be a list, or not there.

    Raises:
        InvalidRequest: it is something else.
    """
    if value is None or isinstance(value, list):
        return value or []
    raise refused(field, "not a list")


def refused(field: str, why: str = "cannot be carried") -> InvalidRequest:
    """The error of a field that Anthropic's API cannot express."""
    return InvalidRequest(f"{field}: {why} (this model's upstream speaks Anthropic's protocol)")
