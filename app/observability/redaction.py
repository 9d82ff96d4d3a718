"""The last look at a log line: what is a secret by its name or by its shape is not written, whoever put it there."""

import re

from structlog.typing import EventDict

HIDDEN = "[redacted]"
NAMES = frozenset(
    {"api_key", "authorization", "cookie", "credentials", "password", "proxy-authorization", "secret", "set-cookie"}
    | {"ticket", "x-api-key"}
)
# Keys as we and most upstreams make them; bearer tokens; JWTs; what is before the @ of a URL; secret parameters.
_SHAPES = re.compile(
    r"\bsk-[\w-]{8,}"
    r"|(?<=[Bb]earer )[\w.~+/=-]{8,}"
    r"|\beyJ[\w-]{8,}\.[\w-]+\.[\w-]*"
    r"|(?<=://)[^/\s@]*:[^/\s@]+(?=@)"
    r"|(?<=[?&]ticket=)[^&\s\"']+|(?<=[?&]key=)[^&\s\"']+|(?<=[?&]api_key=)[^&\s\"']+"
)


def redact(line: EventDict) -> EventDict:
    """Hide them, in place."""
    for name, value in line.items():
        if type(value) is str:
            if name in NAMES:
                line[name] = HIDDEN
            elif len(value) > 8:  # shorter than any secret
                line[name] = _SHAPES.sub(HIDDEN, value)
    return line


def may_have_secrets(line: EventDict, encoded: bytes) -> bool:
    """Whether `redact` may find something in a line, by its JSON, since looking into each of its values costs more than
    all else that is done to a line, and hardly one has any.

    Each of `_SHAPES` has one of these marks, and JSON escapes nothing in them. No loop: it would cost more than these.
    """
    text = encoded.decode()  # bytes take each mark for a number first, and fail
    return (
        "sk-" in text
        or "earer " in text
        or "eyJ" in text
        or "@" in text
        or "=" in text  # of a parameter
        or not NAMES.isdisjoint(line)
    )
