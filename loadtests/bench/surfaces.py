"""The routes that can be measured, and what to ask of them."""

import json
from typing import NamedTuple

MODEL = "gpt-x"


class Surface(NamedTuple):
    """A streaming route, and the body and a header of a request to it.

    `host` is who is asked; without `stamped` its upstream is not our origin, and whatever it calls a token is one.
    """

    path: str
    body: str
    header: str = ""
    host: str = "127.0.0.1"
    stamped: bool = True


SURFACES = {
    "openai": Surface(
        "/v1/chat/completions",
        json.dumps({"model": MODEL, "stream": True, "messages": [{"role": "user", "content": "Tell me a story."}]}),
    ),
    "native": Surface("/api/v1/generate", json.dumps({"model": MODEL, "stream": True, "prompt": "Tell me a story."})),
}
