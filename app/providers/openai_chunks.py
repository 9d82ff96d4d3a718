"""The JSON of OpenAI's chat completions: only the fields that are needed, each of which may be null or absent.

Typed, since this is decoded once a token: into dictionaries it costs nearly twice as much.
"""

import msgspec

from app.providers.answer_stream import invalid


class Delta(msgspec.Struct, gc=False):
    """What a chunk adds to its choice."""

    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    tool_calls: msgspec.Raw = msgspec.Raw()  # passed on as it came, so not parsed


class Choice(msgspec.Struct, gc=False):
    """One of the answers; more than the first are not asked for."""

    index: int | None = 0
    delta: Delta | None = None
    message: Delta | None = None  # where the answer is no stream
    finish_reason: str | None = None


class UsageCount(msgspec.Struct, gc=False):
    """Tokens, as the upstream counts them."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None


class Chunk(msgspec.Struct, gc=False):
    """One event's payload, or a whole answer that is no stream."""

    choices: list[Choice] | None = None
    usage: UsageCount | None = None
    error: msgspec.Raw = msgspec.Raw()
    object: str | None = None


LF, CR = b"\n\r"
_decoder = msgspec.json.Decoder(Chunk)


def decode(data: bytes) -> Chunk:
    """A chunk from its JSON.

    Raises:
        UpstreamInvalid: it is none.
    """
    try:
        return _decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise invalid(f"{error}: {data[:200]!r}") from None


def content(data: bytes) -> str | None:
    """The text of a chunk that brings text and nothing else; None for any other."""
    # A line end is nowhere in compact JSON, but may be between its tokens. By number: looked for as bytes, it costs an
    # exception inside the interpreter.
    if LF in data or CR in data:
        return None
    try:
        chunk = _decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    choices = chunk.choices
    if choices is None or len(choices) != 1 or chunk.usage is not None or (len(chunk.error) and given(chunk.error)):
        return None
    choice = choices[0]
    delta = choice.delta
    if delta is None or choice.index or choice.finish_reason:
        return None
    if delta.reasoning_content or delta.reasoning or (len(delta.tool_calls) and given(delta.tool_calls)):
        return None
    return delta.content


def given(raw: msgspec.Raw) -> bytes:
    """The JSON of a field that is passed on as it came; empty where it is absent, null or an empty list."""
    if not len(raw):
        return b""
    data = bytes(raw)  # a Raw equals nothing but itself
    return b"" if data in {b"null", b"[]"} else data
