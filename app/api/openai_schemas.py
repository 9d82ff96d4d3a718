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

    type: str = Field(description="What kind of part it is.")
    text: Annotated[str, Field(max_length=PROMPT_CHARACTERS_MAX)] | None = Field(
        None, description="Of a part of kind `text`."
    )


class ChatMessage(BaseModel):
    """One message of the conversation so far."""

    model_config = ConfigDict(extra="allow")

    role: Literal["system", "developer", "user", "assistant", "tool", "function"] = Field(description="Who says it.")
    content: Annotated[str, Field(max_length=PROMPT_CHARACTERS_MAX)] | list[ContentPart] | None = Field(
        None, description="Text, or parts of it and of other kinds."
    )


class StreamOptions(BaseModel):
    """What a stream says besides tokens."""

    model_config = ConfigDict(strict=True, extra="allow")

    include_usage: bool = Field(False, description="One more chunk before [DONE], with the usage.")


class ChatCompletionBody(BaseModel):
    """POST /v1/chat/completions."""

    model_config = ConfigDict(strict=True, extra="allow")

    model: ModelName
    messages: Annotated[list[ChatMessage], Field(min_length=1, max_length=MESSAGES_MAX)] = Field(
        description="The conversation so far, the oldest message first."
    )
    max_tokens: MaxTokens | None = None
    max_completion_tokens: Annotated[int, Field(ge=1, le=MAX_TOKENS_MAX)] | None = Field(
        None, description="The newer name of max_tokens, and the stronger of the two."
    )
    temperature: Temperature | None = None
    n: Literal[1] | None = Field(None, description="Answers per request; only 1.")
    stream: bool | None = Field(False, description="Server-sent events instead of one JSON answer.")
    stream_options: StreamOptions | None = Field(None, description="What a stream says besides its text.")
    simulator: SimulatorBody | None = Field(None, description="How the simulator behaves; only in development.")


class CompletionMessage(BaseModel):
    """The assistant's message."""

    role: Literal["assistant"] = Field("assistant", description="Who says it.")
    content: str | None = Field(
        examples=["Good morning! How can I help?"], description="The text; null where there are tool calls alone."
    )
    reasoning_content: str | None = Field(None, description="What the model thought before, where it tells.")
    tool_calls: list[dict[str, Any]] | None = Field(None, description="What it wants to be called.")


class Choice(BaseModel):
    """The one choice."""

    index: Literal[0] = Field(0, description="Its number: there is one answer.")
    message: CompletionMessage
    finish_reason: str = Field(examples=["stop"], description="Why it ended.")


class CompletionUsage(BaseModel):
    """Tokens, under OpenAI's names."""

    prompt_tokens: int = Field(description="Tokens of the request.")
    completion_tokens: int = Field(description="Tokens of the answer.")
    total_tokens: int = Field(description="Both together.")


class ChatCompletion(BaseModel):
    """The whole answer, where it was not streamed."""

    id: str = Field(examples=["chatcmpl-pYnkZ0gC2rT1uVwX3yZaBcDe"], description="Of this answer.")
    object: Literal["chat.completion"] = Field("chat.completion", description="That this is a whole completion.")
    created: int = Field(examples=[1_790_000_000], description="When it was asked for, in seconds since 1970.")
    model: str = Field(examples=["simulator"], description="The model that was asked for.")
    choices: list[Choice] = Field(description="One answer.")
    usage: CompletionUsage


class ModelCard(BaseModel):
    """One model, as OpenAI's SDK and as Anthropic's read it: their fields do not contradict each other."""

    id: str = Field(examples=["simulator"], description="Its name, as requests give it.")
    object: Literal["model"] = Field("model", description="That this is a model.")
    created: int = Field(0, description="Not known: always 0.")
    owned_by: str = Field("sluice", description="Who serves it.")
    type: Literal["model"] = Field("model", description="That this is a model, in Anthropic's words.")
    display_name: str = Field(examples=["simulator"], description="Its name, for people.")
    created_at: str = Field("1970-01-01T00:00:00Z", description="Not known: always the beginning of 1970.")
    lifecycle: Literal["active"] = Field("active", description="That it can be asked.")


class ModelList(BaseModel):
    """All models, on one page."""

    object: Literal["list"] = Field("list", description="That this is a list.")
    data: list[ModelCard] = Field(description="All models, the default first.")
    has_more: Literal[False] = Field(False, description="That there is no further page.")
    first_id: str | None = Field(None, description="The first model's name.")
    last_id: str | None = Field(None, description="The last model's name.")


class OpenAIErrorDetail(BaseModel):
    """What went wrong, as OpenAI says it."""

    message: str = Field(description="What is wrong, for people.")
    type: str = Field(examples=["invalid_request_error"], description="OpenAI's kind of error.")
    param: str | None = Field(None, description="The field that is wrong.")
    code: str | None = Field(examples=["model_not_found"], description="Our own code of it.")


class OpenAIErrorAnswer(BaseModel):
    """Every error under /v1."""

    error: OpenAIErrorDetail
