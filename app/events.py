"""What a generation can say: frozen values that providers yield, and that surfaces encode. Imports nothing of ours.

A generation is any number of `Token`, then exactly one `Done` or `Failed`.
"""

from typing import Literal

import msgspec

TokenKind = Literal["content", "thought", "tool_call"]


class Usage(msgspec.Struct, frozen=True, gc=False):
    """Tokens read and written, as the upstream counted them, or as counted here where it did not say."""

    input_tokens: int = 0
    output_tokens: int = 0


class Token(msgspec.Struct, frozen=True, tag="token", gc=False):
    """One piece of the answer. For a `tool_call`, `text` is the JSON of one OpenAI `tool_calls` delta list.

    `index` counts content tokens from 1 and stays 0 for the other kinds. Providers leave it 0: the producer numbers.
    """

    text: str
    kind: TokenKind = "content"
    index: int = 0


class Done(msgspec.Struct, frozen=True, tag="done", gc=False, omit_defaults=True):
    """The generation ended as the model meant it to: `stop`, `length`, `tool_calls`, `content_filter` …

    `cost` is in the operator's currency, and None where its upstreams have no price.
    """

    finish_reason: str
    usage: Usage
    duration_ms: int = 0
    cost: float | None = None


class Failed(msgspec.Struct, frozen=True, tag="failed", gc=False):
    """The generation ended without being complete. `status` is the HTTP status it has while none has been sent."""

    code: str
    message: str
    status: int
    retryable: bool
    retry_after_seconds: int | None = None


class Reset(msgspec.Struct, frozen=True, tag="reset", gc=False):
    """What was said so far is void; the stream begins again behind this event."""

    reason: str


Event = Token | Done | Failed | Reset
Terminal = Done | Failed
# For isinstance: a union would be made anew at every call, which shows where that is once a token.
ENDS = (Done, Failed)
