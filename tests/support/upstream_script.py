"""How the scripted upstream answers one request: plain data that travels as JSON."""

from typing import Any, Literal

import msgspec


class Script(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The defaults are a well-behaved upstream; each field departs from it in one way, and they combine."""

    protocol: Literal["openai", "anthropic"] = "openai"
    """Whose shapes the answer has; the server sets it by the path that was asked."""

    # What is said.
    tokens: int | list[str] = 8
    """Texts of the content tokens, or how many: then they are `tok0 `, `tok1 ` …"""
    reasoning: list[str] = []
    """Sent before the content, as `reasoning_field` of the delta."""
    reasoning_field: str = "reasoning_content"
    tool_calls: list[list[dict[str, Any]]] = []
    """`tool_calls` lists of deltas, sent after the content."""
    events: list[dict[str, Any]] = []
    """Of Anthropic's: all that comes between `message_start` and `message_delta`, in place of the fields above."""
    usage_fields: dict[str, int] = {}
    """Of Anthropic's: more counts in `message_start`, such as those of its cache."""
    role_chunk: bool = True
    finish_reason: str | None = "stop"
    """None sends no chunk with a finish_reason, and null where a chunk needs the field."""
    usage: bool | None = None
    """None: when the request asks for it, as OpenAI does."""
    missing_done: bool = False

    # When.
    headers_delay_seconds: float = 0
    first_delay_seconds: float = 0
    delay_seconds: float = 0
    stall_after: int | None = None
    """Says nothing more after so many tokens until the peer closes (`trickle` apart)."""
    trickle: str = ""
    """Raw text sent every `trickle_seconds` of each wait and stall after the headers: a comment, half a line …"""
    trickle_seconds: float = 0.1
    eof_delay_seconds: float = 0
    """Keeps the body open for so long after its last byte."""

    # How it ends, other than well.
    die_after: int | None = None
    how: Literal["fin", "rst", "no_zero_chunk"] = "no_zero_chunk"
    """`fin` ends the HTTP body as a whole one ends: only the missing terminal event tells. The others cut it."""
    die_at_end: bool = False
    """Dies after the last byte of the body, in place of ending it."""
    error_at: int | None = None
    """Sends `error_frame` after so many tokens, and ends."""
    error_frame: str = 'data: {"error":{"message":"upstream failed","type":"server_error","code":500}}'

    # In place of the stream.
    status: int = 200
    body: str | None = None
    """The body of a status other than 200, or None for OpenAI's error object."""
    headers: dict[str, str] = {}
    plain_json: bool = False
    html: bool = False
    body_hex: str | None = None
    """The bytes of the body, verbatim."""
    response_hex: str | None = None
    """All bytes of the answer, its head included, or none; then the connection is closed (`how: rst` resets it)."""

    # How it is written.
    first_frame: str | None = None
    """Raw text before everything else of the body."""
    between: str = ""
    """Raw text before each token: comments, pings, other events."""
    newline: Literal["\n", "\r\n", "\r"] = "\n"
    bom: bool = False
    giant_line_bytes: int = 0
    """A data line of so many bytes after the first chunk, without a line end before it is complete."""
    split_at: int = 0
    """Writes the body in pieces of so many bytes, each a chunk and a segment of its own; 0 does not split."""
    framing: Literal["chunked", "content_length", "until_close"] = "chunked"

    @property
    def texts(self) -> list[str]:
        """The content tokens."""
        return [f"tok{n} " for n in range(self.tokens)] if isinstance(self.tokens, int) else self.tokens

    @property
    def text(self) -> str:
        """The whole content: what a client must have at the end."""
        return "".join(self.texts)
