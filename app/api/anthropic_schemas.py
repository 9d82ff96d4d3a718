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

    role: Literal["user", "assistant", "system"]
    content: Text | Blocks


class MessagesBody(BaseModel):
    """POST /v1/messages."""

    model_config = ConfigDict(strict=True, extra="allow")

    model: ModelName
    messages: Annotated[list[MessageBody], Field(min_length=1, max_length=MESSAGES_MAX)]
    max_tokens: Annotated[int, Field(ge=1, le=OUTPUT_TOKENS_MAX)]
    system: Text | Blocks | None = None
    temperature: Annotated[float, Field(ge=0, le=1)] | None = None
    top_p: Annotated[float, Field(ge=0, le=1)] | None = None
    stop_sequences: Annotated[list[str], Field(max_length=64)] | None = None
    tools: Blocks | None = None
    tool_choice: dict[str, Any] | None = None
    thinking: dict[str, Any] | None = None
    output_config: dict[str, Any] | None = None
    metadata: dict[str, Any] | None = None
    stream: bool | None = False
    simulator: SimulatorBody | None = None


class MessageUsage(BaseModel):
    """Tokens, under Anthropic's names. What came from the upstream's cache counts as input here."""

    input_tokens: int
    output_tokens: int


class MessageAnswer(BaseModel):
    """The whole answer, where it was not streamed."""

    id: str = Field(examples=["msg_pYnkZ0gC2rT1uVwX3yZaBcDe"])
    type: Literal["message"] = "message"
    role: Literal["assistant"] = "assistant"
    model: str = Field(examples=["simulator"])
    content: list[dict[str, Any]] = Field(examples=[[{"type": "text", "text": "Good morning!"}]])
    stop_reason: str = Field(examples=["end_turn"])
    stop_sequence: None = None
    usage: MessageUsage


class AnthropicErrorDetails(BaseModel):
    """What programs go by."""

    error_code: str = Field(examples=["model_not_found"])


class AnthropicErrorDetail(BaseModel):
    """What went wrong, as Anthropic says it."""

    type: str = Field(examples=["not_found_error"])
    message: str
    details: AnthropicErrorDetails


class AnthropicErrorAnswer(BaseModel):
    """Every error under /v1/messages."""

    type: Literal["error"] = "error"
    error: AnthropicErrorDetail
    request_id: str
