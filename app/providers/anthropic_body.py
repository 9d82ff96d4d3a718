"""A request in OpenAI's terms as the body of one to Anthropic's Messages API.

What has no counterpart there and would change the answer is refused by its field's name; app/api/CARRYING.md has the
tables.
"""

from typing import Any

from app.providers.anthropic_turns import blocks_of, listed, refused, turns
from app.providers.base import GenerationRequest

MAX_TOKENS = 8192  # the API wants to be told; what every model of its last generations can write

# They change nothing in the answer: bookkeeping, routing and hints. `name` of a message is one too.
_WITHOUT_EFFECT = {
    "metadata",
    "n",
    "parallel_tool_calls",
    "prompt_cache_key",
    "prompt_cache_retention",
    "safety_identifier",
    "service_tier",
    "store",
    "stream_options",
    "user",
}
# Of the same name and meaning here, or Anthropic's own fields, that a caller can only have meant for such an upstream.
_SAME = {"cache_control", "inference_geo", "output_config", "speed", "thinking", "top_k", "top_p"}
_OURS = {"reasoning_effort", "response_format", "stop", "tool_choice", "tools"}
# In OpenAI's API these mean the same as leaving them out.
_DEFAULTS: dict[str, Any] = {
    "frequency_penalty": 0,
    "logit_bias": {},
    "logprobs": False,
    "modalities": ["text"],
    "presence_penalty": 0,
    "top_logprobs": 0,
    "verbosity": "medium",
}


def messages_body(request: GenerationRequest) -> dict[str, Any]:
    """The body, without `model` and `stream`.

    Raises:
        InvalidRequest: a field cannot be carried; its name is the message's beginning.
    """
    extra = {name: value for name, value in request.extra.items() if value is not None}
    for name, value in extra.items():
        known = name in _SAME or name in _OURS or name in _WITHOUT_EFFECT
        if not known and not (name in _DEFAULTS and value == _DEFAULTS[name]):
            raise refused(name[:100])
    body: dict[str, Any] = {name: extra[name] for name in extra.keys() & _SAME}
    body["max_tokens"] = request.max_tokens or MAX_TOKENS
    if request.temperature is not None:
        if request.temperature > 1:
            raise refused("temperature", "at most 1")
        body["temperature"] = request.temperature
    body |= _conversation(request.messages)
    body |= _tools(extra)
    body |= _output(extra)
    if stop := extra.get("stop"):
        body["stop_sequences"] = [stop] if isinstance(stop, str) else stop
    if user := extra.get("user"):
        body["metadata"] = {"user_id": user}
    return body


def _conversation(messages: list[dict[str, Any]]) -> dict[str, Any]:
    """Instructions are a field there, and so can only come first."""
    first = 0
    while first < len(messages) and messages[first]["role"] in ("system", "developer"):
        first += 1
    system = [block for at in range(first) for block in blocks_of(messages[at].get("content"), f"messages.{at}")]
    for at, block in enumerate(system):
        if block["type"] != "text":
            raise refused(f"messages.{at}.content", "instructions are text")
    found: dict[str, Any] = {"messages": turns(messages, first)}
    if len(system) == 1 and len(system[0]) == 2:
        found["system"] = system[0]["text"]
    elif system:
        found["system"] = system
    return found


def _tools(extra: dict[str, Any]) -> dict[str, Any]:
    tools = listed(extra.get("tools"), "tools")
    if not tools:
        return {}
    found: dict[str, Any] = {"tools": [_tool(tool, at) for at, tool in enumerate(tools)]}
    choice = _choice(extra.get("tool_choice"))
    if extra.get("parallel_tool_calls") is False and (choice or {}).get("type") != "none":
        choice = (choice or {"type": "auto"}) | {"disable_parallel_tool_use": True}
    return found | ({"tool_choice": choice} if choice else {})


def _tool(tool: Any, at: int) -> dict[str, Any]:
    function = tool.get("function") if isinstance(tool, dict) and tool.get("type") == "function" else None
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise refused(f"tools.{at}", "only functions can be carried")
    schema = function.get("parameters") or {"type": "object", "properties": {}}
    found = {"name": function["name"], "input_schema": schema}
    found |= {name: function[name] for name in ("description", "strict") if function.get(name) is not None}
    return found | ({"cache_control": tool["cache_control"]} if "cache_control" in tool else {})


def _choice(choice: Any) -> dict[str, Any] | None:
    if choice is None:
        return None
    if isinstance(choice, str) and choice in ("auto", "none", "required"):
        return {"type": "any" if choice == "required" else choice}
    if isinstance(choice, dict) and isinstance(choice.get("function"), dict) and "name" in choice["function"]:
        return {"type": "tool", "name": choice["function"]["name"]}
    raise refused("tool_choice")


def _output(extra: dict[str, Any]) -> dict[str, Any]:
    """The format of the answer, and how much is thought about it."""
    config = extra.get("output_config", {})
    if not isinstance(config, dict):
        raise refused("output_config", "not an object")
    config = dict(config)
    found: dict[str, Any] = {}
    effort = extra.get("reasoning_effort")
    if effort == "none":
        found["thinking"] = {"type": "disabled"}
    elif effort is not None:
        config["effort"] = "low" if effort == "minimal" else effort
    wanted = extra.get("response_format") or {"type": "text"}
    kind = wanted.get("type") if isinstance(wanted, dict) else None
    if kind == "json_schema" and isinstance(wanted.get("json_schema"), dict) and "schema" in wanted["json_schema"]:
        config["format"] = {"type": "json_schema", "schema": wanted["json_schema"]["schema"]}
    elif kind != "text":
        raise refused("response_format", "only text and json_schema can be carried")
    return found | ({"output_config": config} if config else {})
