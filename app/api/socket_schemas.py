"""What a client may say on a WebSocket. What it is told is in `app.streams.sockets`."""

from typing import Annotated, Any, Literal

from pydantic import AliasChoices, BaseModel, ConfigDict, Discriminator, Field, Tag, TypeAdapter

from app.api.schemas import GenerationBody, Prompt

Name = Annotated[str, Field(min_length=1, max_length=100)]


class SayMessage(GenerationBody):
    """Something to answer. Its text is `message`, or `prompt` as in the body of a POST."""

    type: Literal["message"] = "message"
    text: Annotated[Prompt, Field(validation_alias=AliasChoices("message", "prompt"))]
    idempotency_key: Annotated[str, Field(min_length=1, max_length=255, pattern=r"^[ -~]+$")] | None = None


class ResumeMessage(BaseModel):
    """Go on behind an id; without one, read a stream from its beginning: on a conversation its newest."""

    model_config = ConfigDict(extra="forbid")

    type: Literal["resume"]
    last_event_id: Name | None = None
    stream_id: Name | None = None


class CancelMessage(BaseModel):
    """Stop what is being answered here."""

    model_config = ConfigDict(extra="forbid")

    type: Literal["cancel"]


class PingMessage(BaseModel):
    """Asks for a `pong`."""

    model_config = ConfigDict(extra="forbid")

    type: Literal["ping"]


class PongMessage(BaseModel):
    """Answers a `ping`, which needs no answer."""

    model_config = ConfigDict(extra="forbid")

    type: Literal["pong"]


ClientMessage = SayMessage | ResumeMessage | CancelMessage | PingMessage | PongMessage


def _type(value: Any) -> Any:
    # Without a type it is what a POST would have for its body.
    return value.get("type", "message") if isinstance(value, dict) else None


CLIENT_MESSAGE: TypeAdapter[ClientMessage] = TypeAdapter(
    Annotated[
        Annotated[SayMessage, Tag("message")]
        | Annotated[ResumeMessage, Tag("resume")]
        | Annotated[CancelMessage, Tag("cancel")]
        | Annotated[PingMessage, Tag("ping")]
        | Annotated[PongMessage, Tag("pong")],
        Discriminator(
            _type,
            custom_error_type="message_type",
            custom_error_message="a JSON object whose type is message, resume, cancel, ping or pong",
        ),
    ]
)
