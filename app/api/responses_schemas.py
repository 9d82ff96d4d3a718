"""Bodies and answers of /v1/responses, in OpenAI's shapes.

Source of the shapes: OpenAI's API reference, as openai 3.52 reads and writes them.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from app.api.openai_schemas import MESSAGES_MAX
from app.api.schemas import PROMPT_CHARACTERS_MAX, MaxTokens, ModelName, SimulatorBody, Temperature


class ResponsesBody(BaseModel):
    """POST /v1/responses. What Sluice does not know is passed on."""

    model_config = ConfigDict(strict=True, extra="allow")

    model: ModelName
    input: (
        Annotated[str, Field(min_length=1, max_length=PROMPT_CHARACTERS_MAX)]
        | Annotated[list[dict[str, Any]], Field(min_length=1, max_length=MESSAGES_MAX)]
    ) = Field(description="Text, or items: messages, calls of functions and what came of them.")
    instructions: Annotated[str, Field(max_length=PROMPT_CHARACTERS_MAX)] | None = Field(
        None, description="Precede the input; not taken over by a response that follows this one."
    )
    previous_response_id: Annotated[str, Field(max_length=64)] | None = Field(
        None, description="The response that this one goes on from, while it is kept."
    )
    max_output_tokens: MaxTokens | None = None
    temperature: Temperature | None = None
    stream: bool | None = Field(False, description="Server-sent events instead of one JSON answer.")
    background: bool | None = Field(False, description="Goes on whatever becomes of the connection; read it by its id.")
    tools: list[dict[str, Any]] | None = Field(None, description="Functions.")
    tool_choice: str | dict[str, Any] | None = Field(None, description="Whether a tool must be called, and which.")
    text: dict[str, Any] | None = Field(None, description="The answer's form, passed on.")
    reasoning: dict[str, Any] | None = Field(None, description="How much the model thinks first, passed on.")
    simulator: SimulatorBody | None = Field(None, description="How the simulator behaves; only in development.")


class ResponseAnswer(BaseModel):
    """A response, as far as it is."""

    model_config = ConfigDict(extra="allow")

    id: str = Field(
        examples=["resp_pYnkZ0gC2rT1uVwX3yZaBcDe"], description="Of this answer; it can be asked for again by it."
    )
    object: Literal["response"] = Field("response", description="That this is a response.")
    created_at: int = Field(examples=[1_790_000_000], description="When it was asked for, in seconds since 1970.")
    status: Literal["queued", "in_progress", "completed", "incomplete", "failed", "cancelled"] = Field(
        description="How far it is, or how it ended."
    )
    background: bool = Field(description="Whether it goes on without a reader.")
    model: str = Field(examples=["simulator"], description="The model that was asked for.")
    output: list[dict[str, Any]] = Field(description="What it says so far: reasoning, messages and calls.")
    error: dict[str, Any] | None = Field(None, description="What failed, if something did.")
    incomplete_details: dict[str, Any] | None = Field(None, description="Why it is cut short, if it is.")
    usage: dict[str, Any] | None = Field(None, description="Tokens of request and answer, once it has ended.")
