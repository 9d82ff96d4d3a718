"""Bodies and answers of /api/v2: typed parts of content, one object of options, the caller's own metadata."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from app.api.schemas import PROMPT_CHARACTERS_MAX, ConversationId, MaxTokens, ModelName, SimulatorBody, Temperature

PARTS_MAX = 256
METADATA_PAIRS_MAX = 16

_Name = Annotated[str, Field(min_length=1, max_length=64)]
_Value = Annotated[str, Field(max_length=512)]


class TextPart(BaseModel):
    """Text."""

    model_config = ConfigDict(extra="forbid")

    type: Literal["text"] = Field(description="That this is text.")
    text: Annotated[str, Field(min_length=1, max_length=PROMPT_CHARACTERS_MAX)] = Field(description="The text.")


class ImagePart(BaseModel):
    """A picture, for models that see."""

    model_config = ConfigDict(extra="forbid")

    type: Literal["image"] = Field(description="That this is an image.")
    url: Annotated[str, Field(pattern=r"^(https?://|data:image/)", description="http, https or data.")]


Part = Annotated[TextPart | ImagePart, Field(discriminator="type")]


class Options(BaseModel):
    """How to answer."""

    model_config = ConfigDict(extra="forbid")

    stream: bool | None = Field(
        None, description="Server-sent events instead of one JSON answer; without it `?stream=` and `Accept` decide."
    )
    max_tokens: MaxTokens | None = None
    temperature: Temperature | None = None
    seed: Annotated[int, Field(ge=-(2**53), le=2**53)] | None = Field(
        None, description="Models that know it answer the same request the same way."
    )
    on_disconnect: Literal["cancel", "grace", "finish"] | None = Field(
        None, description="What becomes of the generation when nobody reads it: end at once, in a while, or never."
    )
    cache: bool = Field(
        False,
        description="The same request's earlier answer will do while it is kept, whatever its metadata was; needs "
        "temperature 0 or a seed.",
    )
    simulator: SimulatorBody | None = Field(None, description="How the simulator behaves; only in development.")

    @model_validator(mode="after")
    def _only_what_repeats_is_cached(self) -> "Options":
        if self.cache and self.temperature != 0 and self.seed is None:
            raise ValueError("cache: needs temperature 0 or a seed")
        return self


class GenerateBodyV2(BaseModel):
    """POST /api/v2/generate."""

    model_config = ConfigDict(extra="forbid")

    input: (
        Annotated[str, Field(min_length=1, max_length=PROMPT_CHARACTERS_MAX)]
        | Annotated[list[Part], Field(min_length=1, max_length=PARTS_MAX)]
    ) = Field(description="What to answer: text, or parts.")
    model: ModelName | None = None
    instructions: Annotated[str, Field(max_length=PROMPT_CHARACTERS_MAX)] | None = Field(
        None, description="Precede the input."
    )
    metadata: Annotated[dict[_Name, _Value], Field(max_length=METADATA_PAIRS_MAX)] = Field(
        default={}, description="Yours; the answer, and the end of its stream, repeat it."
    )
    options: Options = Options()

    @property
    def content(self) -> str | list[dict[str, Any]]:
        """The input as the content of a chat's message."""
        if isinstance(self.input, str):
            return self.input
        return [
            {"type": "text", "text": part.text}
            if isinstance(part, TextPart)
            else {"type": "image_url", "image_url": {"url": part.url}}
            for part in self.input
        ]


class ChatBodyV2(GenerateBodyV2):
    """POST /api/v2/chat."""

    model_config = ConfigDict(extra="forbid")

    conversation_id: ConversationId | None = None

    @model_validator(mode="after")
    def _conversations_are_of_text(self) -> "ChatBodyV2":
        if self.conversation_id is None:
            return self
        if self.options.cache:
            raise ValueError("options.cache: not in a conversation, where no answer is like another")
        if not isinstance(self.input, str) and not all(isinstance(part, TextPart) for part in self.input):
            raise ValueError("input: a conversation keeps text, and nothing else")
        return self

    @property
    def content(self) -> str | list[dict[str, Any]]:
        """As one text in a conversation, which keeps it."""
        if self.conversation_id is None or isinstance(self.input, str):
            return super().content
        return "".join(part.text for part in self.input if isinstance(part, TextPart))


class UsageV2(BaseModel):
    """Tokens read and written."""

    input_tokens: int = Field(examples=[5], description="Tokens of the request.")
    output_tokens: int = Field(examples=[64], description="Tokens of the answer.")
    total_tokens: int = Field(examples=[69], description="Both together.")


class ContentV2(BaseModel):
    """A part of the answer: what was said or thought, or a call of a tool."""

    type: Literal["text", "thought", "tool_call"] = Field(description="What kind of part it is.")
    text: str | None = Field(None, examples=["Rayleigh scattering."], description="The part's text.")
    id: str | None = Field(None, description="Of a tool call.")
    name: str | None = Field(None, description="Of the tool that is to be called.")
    arguments: str | None = Field(None, description="JSON, as the model wrote it.")


class GenerateAnswerV2(BaseModel):
    """The whole answer, where it was not streamed."""

    id: str = Field(description="The stream's, to be read again by.", examples=["pYnkZ0gC2rT1uVwX3yZaBcDe"])
    model: str = Field(examples=["simulator"], description="The model that answered.")
    created_at: int = Field(description="Unix time.", examples=[1_790_000_000])
    content: list[ContentV2] = Field(description="Its parts, in their order.")
    finish_reason: str = Field(examples=["stop"], description="Why it ended.")
    usage: UsageV2
    metadata: dict[str, str] = Field(description="The request's own, repeated.")
    conversation_id: str | None = Field(None, description="That whose turn it was.")
