"""A body of OpenAI's Responses API as a chat of its older one, which is what upstreams speak; and back again.

What a chat cannot say is refused by its name, never left out.
"""

from typing import Any

from app.api.responses_schemas import ResponsesBody
from app.errors import InvalidRequest
from app.providers.base import GenerationRequest

# Fields of the API that would need what is not here: a store of conversations, of prompts, of files.
REFUSED = ("conversation", "prompt", "max_tool_calls")
# Those that say nothing about the answer.
IGNORED = {
    "store", "include", "truncation", "metadata", "service_tier", "stream_options", "safety_identifier",
    "prompt_cache_key", "prompt_cache_retention", "context_management",
}  # fmt: skip
# By this name the instructions are told from system messages of the input: only these do not last.
INSTRUCTIONS = "instructions"
ROLES = {"user", "assistant", "system", "developer"}


def instructed(body: ResponsesBody) -> list[dict[str, Any]]:
    """The message that the instructions are."""
    return [{"role": "system", "name": INSTRUCTIONS, "content": body.instructions}] if body.instructions else []


def without_instructions(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What of a conversation a later response takes over."""
    return [message for message in messages if message.get("name") != INSTRUCTIONS]


def messages_of(given: str | list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The input as messages.

    Raises:
        InvalidRequest: an item that a chat cannot have.
    """
    if isinstance(given, str):
        return [{"role": "user", "content": given}]
    messages: list[dict[str, Any]] = []
    for at, item in enumerate(given):
        kind, field = item.get("type", "message"), f"input.{at}"
        if kind == "message":
            messages.append(_message(item, field))
        elif kind == "function_call":
            call: dict[str, Any] = {"id": _text(item, "call_id", field), "type": "function"}
            call["function"] = {"name": _text(item, "name", field), "arguments": _text(item, "arguments", field)}
            if not (messages and messages[-1]["role"] == "assistant"):
                messages.append({"role": "assistant", "content": None})
            messages[-1].setdefault("tool_calls", []).append(call)
        elif kind == "function_call_output":
            output = item.get("output")
            content = output if isinstance(output, str) else _parts(output, f"{field}.output")
            messages.append({"role": "tool", "tool_call_id": _text(item, "call_id", field), "content": content})
        elif kind != "reasoning":  # thoughts are the model's own; a chat does not send them back
            raise InvalidRequest(f"{field}.type: {str(kind)[:100]!r} cannot be carried.")
    return messages


def extra_of(body: ResponsesBody) -> dict[str, Any]:
    """The fields of a chat besides its messages.

    Raises:
        InvalidRequest: one that a chat cannot have.
    """
    found = dict(body.model_extra or {})
    for name in REFUSED:
        if found.get(name) is not None:
            raise InvalidRequest(f"{name}: cannot be carried.")
    extra = {name: value for name, value in found.items() if name not in IGNORED and name not in REFUSED}
    if body.tools:
        extra["tools"] = [_tool(tool, f"tools.{at}") for at, tool in enumerate(body.tools)]
    if body.tool_choice is not None:
        extra["tool_choice"] = _choice(body.tool_choice)
    if body.reasoning and body.reasoning.get("effort"):
        extra["reasoning_effort"] = body.reasoning["effort"]
    text = body.text or {}
    if (form := text.get("format")) and form != {"type": "text"}:
        if not isinstance(form, dict) or form.get("type") not in ("json_object", "json_schema"):
            raise InvalidRequest("text.format.type: one of text, json_object and json_schema.")
        schema = {name: value for name, value in form.items() if name != "type"}
        extra["response_format"] = {"type": form["type"]} | ({"json_schema": schema} if schema else {})
    if text.get("verbosity"):
        extra["verbosity"] = text["verbosity"]
    return extra


def echo(request: GenerationRequest) -> dict[str, Any]:
    """What of a request its response repeats."""
    extra = request.extra
    first = request.messages[0]
    choice = extra.get("tool_choice", "auto")
    form = extra.get("response_format") or {"type": "text"}
    return {
        "instructions": first["content"] if first.get("name") == INSTRUCTIONS else None,
        "parallel_tool_calls": extra.get("parallel_tool_calls", True),
        "tools": [{"type": "function", **tool["function"]} for tool in extra.get("tools", [])],
        "tool_choice": choice if isinstance(choice, str) else {"type": "function", **choice["function"]},
        "text": {"format": {"type": form["type"], **form.get("json_schema", {})}},
        "reasoning": {"effort": extra.get("reasoning_effort"), "summary": None},
        "top_p": extra.get("top_p"),
        "truncation": "disabled",
        "metadata": {},
    }


def _message(item: dict[str, Any], field: str) -> dict[str, Any]:
    role, content = item.get("role"), item.get("content")
    if not isinstance(role, str) or role not in ROLES:
        raise InvalidRequest(f"{field}.role: one of {', '.join(sorted(ROLES))}.")
    return {"role": role, "content": content if isinstance(content, str) else _parts(content, f"{field}.content")}


def _parts(content: Any, field: str) -> str | list[dict[str, Any]]:
    """Text where it is nothing but text, which every upstream reads; else parts."""
    if not isinstance(content, list) or not all(isinstance(part, dict) for part in content):
        raise InvalidRequest(f"{field}: text, or a list of parts.")
    parts = [_part(part, f"{field}.{at}") for at, part in enumerate(content)]
    if all(part["type"] == "text" for part in parts):
        return "".join(part["text"] for part in parts)
    return parts


def _part(part: dict[str, Any], field: str) -> dict[str, Any]:
    kind = part.get("type")
    if kind in ("input_text", "output_text", "text"):
        return {"type": "text", "text": _text(part, "text", field)}
    if kind == "refusal":
        return {"type": "text", "text": _text(part, "refusal", field)}
    if kind == "input_image" and isinstance(part.get("image_url"), str):
        detail = {"detail": part["detail"]} if part.get("detail") else {}
        return {"type": "image_url", "image_url": {"url": part["image_url"], **detail}}
    if kind == "input_file" and isinstance(part.get("file_data"), str):
        return {"type": "file", "file": {name: part[name] for name in ("filename", "file_data") if name in part}}
    raise InvalidRequest(f"{field}: {str(kind)[:100]!r} cannot be carried.")


def _tool(tool: dict[str, Any], field: str) -> dict[str, Any]:
    if tool.get("type") != "function":
        raise InvalidRequest(f"{field}.type: only functions can be carried.")
    _text(tool, "name", field)
    return {"type": "function", "function": {name: value for name, value in tool.items() if name != "type"}}


def _choice(choice: str | dict[str, Any]) -> str | dict[str, Any]:
    if isinstance(choice, str) and choice in ("none", "auto", "required"):
        return choice
    if isinstance(choice, dict) and choice.get("type") == "function":
        return {"type": "function", "function": {"name": _text(choice, "name", "tool_choice")}}
    raise InvalidRequest("tool_choice: none, auto, required or a function.")


def _text(fields: dict[str, Any], name: str, field: str) -> str:
    value = fields.get(name)
    if not isinstance(value, str):
        raise InvalidRequest(f"{field}.{name}: text is required.")
    return value
