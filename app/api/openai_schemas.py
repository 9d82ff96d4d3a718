"""Bodies and answers of the routes under /v1, in OpenAI's shapes. Unknown fields are accepted and passed on.

Source of the shapes: OpenAI's API reference, as openai 3.52 reads and writes them.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from app.api.schemas import MAX_TOKENS_MAX, PROMPT_CHARACTERS_MAX, MaxTokens, ModelName, SimulatorBody, Temperature

MESSAGES_MAX = 2_048


class ContentPart(BaseModel):
    """A typed part of a message's content."""

    model_config = ConfigDict(extra="allow")

    type: str
    text: Annotated[str, Field(max_length=PROMPT_CHARACTERS_MAX)] | None = None


class ChatMessage(BaseModel):
    """One message of the conversation so far."""

    model_config = ConfigDict(extra="allow")

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: Annotated[str, Field(max_length=PROMPT_CHARACTERS_MAX)] | list[ContentPart] | None = None


class StreamOptions(BaseModel):
    """What a stream says besides tokens."""

    model_config = ConfigDict(strict=True, extra="allow")

    include_usage: bool = Field(False, description="One more chunk before [DONE], with the usage.")


class ChatCompletionBody(BaseModel):
    """POST /v1/chat/completions."""

    model_config = ConfigDict(strict=True, extra="allow")

    model: ModelName
    messages: Annotated[list[ChatMessage], Field(min_length=1, max_length=MESSAGES_MAX)]
    max_tokens: MaxTokens | None = None
    max_completion_tokens: Annotated[int, Field(ge=1, le=MAX_TOKENS_MAX)] | None = Field(
        None, description="The newer name of max_tokens, and the stronger of the two."
    )
    temperature: Temperature | None = None
    n: Literal[1] | None = Field(None, description="Answers per request; only 1.")
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    simulator: SimulatorBody | None = None


class CompletionMessage(BaseModel):
    """The assistant's message."""

    role: Literal["assistant"] = "assistant"
    content: str | None = Field(examples=["Good morning! How can I help?"])
    reasoning_content: str | None = None
    tool_calls: list[dict[str, Any]] | None = None


class Choice(BaseModel):
    """The one choice."""

    index: Literal[0] = 0
    message: CompletionMessage
    finish_reason: str = Field(examples=["stop"])


class CompletionUsage(BaseModel):
    """Tokens, under OpenAI's names."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class ChatCompletion(BaseModel):
    """The whole answer, where it was not streamed."""

    id: str = Field(examples=["chatcmpl-pYnkZ0gC2rT1uVwX3yZaBcDe"])
    object: Literal["chat.completion"] = "chat.completion"
    created: int = Field(examples=[1_790_000_000])
    model: str = Field(examples=["simulator"])
    choices: list[Choice]
    usage: CompletionUsage


class ModelCard(BaseModel):
    """One model, as OpenAI's SDK and as Anthropic's read it: their fields do not contradict each other."""

    id: str = Field(examples=["simulator"])
    object: Literal["model"] = "model"
    created: int = 0
    owned_by: str = "sluice"
    type: Literal["model"] = "model"
    display_name: str = Field(examples=["simulator"])
    created_at: str = "1970-01-01T00:00:00Z"
    lifecycle: Literal["active"] = "active"


class ModelList(BaseModel):
    """All models, on one page."""

    object: Literal["list"] = "list"
    data: list[ModelCard]
    has_more: Literal[False] = False
    first_id: str | None = None
    last_id: str | None = None


class OpenAIErrorDetail(BaseModel):
    """What went wrong, as OpenAI says it."""

    message: str
    type: str = Field(examples=["invalid_request_error"])
    param: str | None = None
    code: str | None = Field(examples=["model_not_found"])


class OpenAIErrorAnswer(BaseModel):
    """Every error under /v1."""

    error: OpenAIErrorDetail
