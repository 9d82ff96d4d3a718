"""The JSON of Anthropic's Messages API: only the fields that are needed, each of which may be null or absent.

Source of the shapes: Anthropic's API reference, as anthropic 2.11 reads them.
"""

from typing import TypeVar

import msgspec

from app.providers.answer_stream import invalid


class Block(msgspec.Struct, gc=False):
    """A content block, or what it begins with."""

    type: str = ""
    text: str | None = None
    thinking: str | None = None
    signature: str | None = None
    data: str | None = None
    id: str | None = None
    name: str | None = None
    input: msgspec.Raw = msgspec.Raw()  # passed on as it came, so not parsed


class Delta(msgspec.Struct, gc=False):
    """What is added to a content block, or to the message."""

    type: str = ""
    text: str | None = None
    thinking: str | None = None
    signature: str | None = None
    partial_json: str | None = None
    stop_reason: str | None = None


class UsageCount(msgspec.Struct, gc=False):
    """Tokens, as the upstream counts them. `input_tokens` leaves out what came from its cache or went into it."""

    input_tokens: int | None = None
    cache_creation_input_tokens: int | None = None
    cache_read_input_tokens: int | None = None
    output_tokens: int | None = None


class Message(msgspec.Struct, gc=False):
    """A whole message, or what a stream begins with."""

    type: str = ""
    content: list[Block] | None = None
    stop_reason: str | None = None
    usage: UsageCount | None = None


class Event(msgspec.Struct, gc=False):
    """One event's payload."""

    type: str = ""
    index: int = 0
    message: Message | None = None
    content_block: Block | None = None
    delta: Delta | None = None
    usage: UsageCount | None = None


class ErrorKind(msgspec.Struct, gc=False):
    """What kind of error it is."""

    type: str | None = None


class ErrorEvent(msgspec.Struct, gc=False):
    """An `error` event, or an error's whole answer."""

    error: ErrorKind | None = None


T = TypeVar("T")

_event = msgspec.json.Decoder(Event)
_message = msgspec.json.Decoder(Message)
_error = msgspec.json.Decoder(ErrorEvent)


def decode_event(data: bytes) -> Event:
    """An event from its JSON.

    Raises:
        UpstreamInvalid: it is none.
    """
    return _decoded(_event, data)


def decode_message(data: bytes) -> Message:
    """A whole message from its JSON.

    Raises:
        UpstreamInvalid: it is none.
    """
    return _decoded(_message, data)


def error_kind(data: bytes) -> str:
    """What kind of error `data` tells of; empty where it does not say."""
    try:
        error = _error.decode(data).error
    except (msgspec.DecodeError, UnicodeDecodeError):
        return ""
    return (error.type if error is not None else None) or ""


def _decoded(decoder: "msgspec.json.Decoder[T]", data: bytes) -> T:
    try:
        return decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise invalid(f"{error}: {data[:200]!r}") from None
