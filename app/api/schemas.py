"""Bodies and answers of the native API, with the ranges that are enforced."""

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

PROMPT_CHARACTERS_MAX = 100_000
MAX_TOKENS_MAX = 32_768

Prompt = Annotated[
    str,
    Field(
        min_length=1, max_length=PROMPT_CHARACTERS_MAX, description="What to answer.", examples=["Why is the sky blue?"]
    ),
]
MaxTokens = Annotated[
    int, Field(ge=1, le=MAX_TOKENS_MAX, description="Most tokens to generate; without it, the model decides.")
]
ConversationId = Annotated[
    str,
    Field(
        pattern=r"^[A-Za-z0-9._-]{1,64}$",
        description="Your name for the conversation: what was said in it before is told to the model again.",
    ),
]
Temperature = Annotated[float, Field(ge=0, le=2, description="Sampling temperature; without it, the model's default.")]
ModelName = Annotated[str, Field(min_length=1, max_length=200, description="One of GET /v1/models.")]


class SimulatorFault(BaseModel):
    """A failure for the simulated upstream to act out."""

    model_config = ConfigDict(strict=True, extra="forbid")

    kind: Literal["error", "stall", "die"] = Field(
        description="`error`: an error event; `stall`: silence; `die`: the connection ends half-way."
    )
    at_token: int = Field(0, ge=0, le=MAX_TOKENS_MAX, description="After this many tokens.")


class SimulatorBody(BaseModel):
    """How the embedded simulator behaves for this request (development only)."""

    model_config = ConfigDict(strict=True, extra="forbid", json_schema_extra={"examples": [{"seed": 7, "tokens": 40}]})

    seed: int = Field(0, ge=-(2**53), le=2**53, description="Another seed, another text.")
    first_token_ms: float | None = Field(None, ge=0, le=600_000, description="Time to the first token.")
    tokens_per_second: float | None = Field(None, ge=0, le=1_000_000, description="Pace; 0: as fast as it goes.")
    tokens: int | None = Field(None, ge=0, le=MAX_TOKENS_MAX, description="Length of the answer.")
    jitter: float | None = Field(None, ge=0, le=1, description="Each gap varies by this fraction.")
    fault: SimulatorFault | None = Field(None, description="What goes wrong, and where.")


class GenerationBody(BaseModel):
    """What every native request can say."""

    model_config = ConfigDict(strict=True, extra="forbid")

    model: ModelName | None = None
    system: Annotated[str, Field(max_length=PROMPT_CHARACTERS_MAX)] | None = Field(
        None, description="Instructions that precede the prompt."
    )
    max_tokens: MaxTokens | None = None
    temperature: Temperature | None = None
    stream: bool | None = Field(
        None, description="Server-sent events instead of one JSON answer; without it `?stream=` and `Accept` decide."
    )
    on_disconnect: Literal["cancel", "grace", "finish"] | None = Field(
        None, description="What becomes of the generation when nobody reads it: end at once, in a while, or never."
    )
    simulator: SimulatorBody | None = Field(None, description="How the simulator behaves; only in development.")


class GenerateBody(GenerationBody):
    """A prompt to answer."""

    model_config = ConfigDict(extra="forbid")

    prompt: Prompt


class ChatBody(GenerationBody):
    """A message to answer."""

    model_config = ConfigDict(extra="forbid")

    message: Prompt
    conversation_id: ConversationId | None = None


class UsageAnswer(BaseModel):
    """Tokens read and written."""

    input_tokens: int = Field(examples=[5], description="Tokens of the request.")
    output_tokens: int = Field(examples=[64], description="Tokens of the answer.")


class GenerateAnswer(BaseModel):
    """The whole answer, where it was not streamed."""

    success: Literal[True] = Field(True, description="That this is an answer, and no error.")
    response: str = Field(description="The text.", examples=["Rayleigh scattering."])
    prompt: str = Field(description="The prompt that was answered.", examples=["Why is the sky blue?"])
    model: str = Field(examples=["simulator"], description="The model that answered.")
    timestamp: datetime = Field(description="When the answer was complete, UTC.")
    tokens_used: int = Field(description="Tokens read and written.", examples=[69])
    stream_id: str = Field(examples=["pYnkZ0gC2rT1uVwX3yZaBcDe"], description="By which it can be read again.")
    finish_reason: str = Field(examples=["stop"], description="Why it ended.")
    usage: UsageAnswer
    conversation_id: str | None = Field(None, description="As it was sent.")


class ErrorDetail(BaseModel):
    """What went wrong."""

    code: str = Field(description="Stable; program against this.", examples=["model_not_found"])
    message: str = Field(description="For people.", examples=["There is no model 'gpt-0'."])
    retryable: bool = Field(description="Whether the same request may succeed later.", examples=[False])
    request_id: str = Field(examples=["0f8b2c4d6e8f4a1b9c3d5e7f90a1b2c3"], description="The answer's `X-Request-ID`.")
    details: list[dict[str, Any]] | None = Field(None, description="For `invalid_request`: each field that is wrong.")


class ErrorAnswer(BaseModel):
    """Every native error."""

    error: ErrorDetail


class ConversationMessage(BaseModel):
    """What one side said."""

    role: Literal["user", "assistant"] = Field(examples=["user"], description="Who said it.")
    content: str = Field(examples=["Good morning!"], description="The text.")


class ConversationAnswer(BaseModel):
    """What is kept of a conversation."""

    conversation_id: str = Field(examples=["about-the-sky"], description="The name that its caller gave it.")
    messages: list[ConversationMessage] = Field(description="The oldest first.")
    stream_id: str | None = Field(None, description="The stream that answers the newest message just now.")


class StatusAnswer(BaseModel):
    """How far a stream is."""

    stream_id: str = Field(examples=["pYnkZ0gC2rT1uVwX3yZaBcDe"], description="The stream's name.")
    state: Literal["running", "done", "error", "cancelled"] = Field(
        examples=["running"], description="Whether it runs, or how it ended."
    )
    last_id: str | None = Field(
        description="The newest id in the log; null before the first.", examples=["pYnkZ0gC2rT1uVwX3yZaBcDe.0.17"]
    )
    resumable: bool = Field(examples=[True], description="Whether it can be read behind an id.")


class Health(BaseModel):
    """How this worker is."""

    status: Literal["ok", "draining"] = Field(examples=["ok"], description="Whether it takes new work.")
    uptime_seconds: float = Field(examples=[86.4], description="Since the worker that answers began.")
    version: str = Field(examples=["0.1.0"], description="Of Sluice.")
    checks: dict[str, str] = Field(examples=[{"event_loop": "ok"}], description="What was looked at, and how it is.")
