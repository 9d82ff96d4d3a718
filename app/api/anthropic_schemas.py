"""Bodies and answers of /v1/messages, in Anthropic's shapes. Unknown fields are accepted and passed on.

Source of the shapes: Anthropic's API reference, as anthropic 2.11 reads and writes them.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from app.api.openai_schemas import MESSAGES_MAX
from app.api.schemas import PROMPT_CHARACTERS_MAX, ModelName, SimulatorBody

# The API's clients name the most that their model can write, which is more than a native caller may ask for.
OUTPUT_TOKENS_MAX = 1_000_000
BLOCKS_MAX = 2_048

Text = Annotated[str, Field(max_length=PROMPT_CHARACTERS_MAX)]
Blocks = Annotated[list[dict[str, Any]], Field(max_length=BLOCKS_MAX)]


class MessageBody(BaseModel):
    """One turn of the conversation."""

    model_config = ConfigDict(extra="allow")

    role: Literal["user", "assistant", "system"] = Field(description="Who says it.")
    content: Text | Blocks = Field(description="Text, or blocks of it and of other kinds.")


class MessagesBody(BaseModel):
    """POST /v1/messages."""

    model_config = ConfigDict(strict=True, extra="allow")

    model: ModelName
    messages: Annotated[list[MessageBody], Field(min_length=1, max_length=MESSAGES_MAX)] = Field(
        description="The conversation so far, the oldest message first."
    )
    max_tokens: Annotated[int, Field(ge=1, le=OUTPUT_TOKENS_MAX)] = Field(description="Most tokens of the answer.")
    system: Text | Blocks | None = Field(None, description="Instructions that precede the messages.")
    temperature: Annotated[float, Field(ge=0, le=1)] | None = Field(
        None, description="How much chance there is in the choice of tokens."
    )
    top_p: Annotated[float, Field(ge=0, le=1)] | None = Field(
        None, description="Choose among the likeliest tokens whose probabilities add up to this."
    )
    stop_sequences: Annotated[list[str], Field(max_length=64)] | None = Field(
        None, description="Texts before which the answer ends."
    )
    tools: Blocks | None = Field(None, description="What the model may call.")
    tool_choice: dict[str, Any] | None = Field(None, description="Whether it must call one, and which.")
    thinking: dict[str, Any] | None = Field(
        None, description="Whether it thinks first; `disabled` leaves thoughts out of the answer."
    )
    output_config: dict[str, Any] | None = Field(None, description="The answer's form, passed on.")
    metadata: dict[str, Any] | None = Field(None, description="About the caller's user, passed on.")
    stream: bool | None = Field(False, description="Server-sent events instead of one JSON answer.")
    simulator: SimulatorBody | None = Field(None, description="How the simulator behaves; only in development.")


class MessageUsage(BaseModel):
    """Tokens, under Anthropic's names. What came from the upstream's cache counts as input here."""

    input_tokens: int = Field(description="Tokens of the request.")
    output_tokens: int = Field(description="Tokens of the answer.")


class MessageAnswer(BaseModel):
    """The whole answer, where it was not streamed."""

    id: str = Field(examples=["msg_pYnkZ0gC2rT1uVwX3yZaBcDe"], description="Of this answer.")
    type: Literal["message"] = Field("message", description="That this is a message.")
    role: Literal["assistant"] = Field("assistant", description="Who says it.")
    model: str = Field(examples=["simulator"], description="The model that was asked for.")
    content: list[dict[str, Any]] = Field(
        examples=[[{"type": "text", "text": "Good morning!"}]],
        description="What it says: text, thinking and tool_use blocks.",
    )
    stop_reason: str = Field(examples=["end_turn"], description="Why it ended.")
    stop_sequence: None = Field(None, description="Never told: upstreams do not say which one it was.")
    usage: MessageUsage


class AnthropicErrorDetails(BaseModel):
    """What programs go by."""

    error_code: str = Field(examples=["model_not_found"], description="Our own code of it.")


class AnthropicErrorDetail(BaseModel):
    """What went wrong, as Anthropic says it."""

    type: str = Field(examples=["not_found_error"], description="Anthropic's kind of error.")
    message: str = Field(description="What is wrong, for people.")
    details: AnthropicErrorDetails


class AnthropicErrorAnswer(BaseModel):
    """Every error under /v1/messages."""

    type: Literal["error"] = Field("error", description="That this is an error.")
    error: AnthropicErrorDetail
    request_id: str = Field(description="The answer's `X-Request-ID`.")
