"""The last look at a log line: what is a secret by its name or by its shape is not written, whoever put it there."""

import re
from typing import Any

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


def redact(_logger: Any, _method: str, fields: EventDict) -> EventDict:
    """A processor of structlog's."""
    for name, value in fields.items():
        if type(value) is str:
            if name in NAMES:
                fields[name] = HIDDEN
            elif len(value) > 8:  # shorter than any secret
                fields[name] = _SHAPES.sub(HIDDEN, value)
    return fields
