"""How an upstream is asked to go on behind a text: the last message is an assistant's that has no end."""

from typing import Any, Literal

import msgspec

from app.providers.base import GenerationRequest

# none: it cannot. native: the provider takes a prefix itself; whole: and counts it as written. assistant: the message
# is enough. vllm and prefix: what servers of these families want besides, or they begin a new message behind it.
Prefill = Literal["none", "whole", "native", "assistant", "vllm", "prefix"]


def prefilled(request: GenerationRequest, said: str, prefill: Prefill) -> tuple[GenerationRequest, str]:
    """The request to go on behind `said`, and what of it the upstream is given."""
    if prefill in {"native", "whole"}:
        return request.behind(said), said
    # Anthropic refuses white space at the end; others tokenize it apart from the word that follows.
    given = said.rstrip()
    message: dict[str, Any] = {"role": "assistant", "content": given}
    extra = request.extra
    if prefill == "vllm":
        extra = {**extra, "continue_final_message": True, "add_generation_prompt": False}
    elif prefill == "prefix":
        message["prefix"] = True
    messages = [*request.messages, message]
    return msgspec.structs.replace(request, messages=messages, extra=extra, prefix=""), given
