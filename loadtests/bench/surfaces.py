"""The routes that can be measured, and what to ask of them."""

import json
from typing import NamedTuple

MODEL = "gpt-x"


class Surface(NamedTuple):
    """A streaming route, and the body and a header of a request to it."""

    path: str
    body: str
    header: str = ""


SURFACES = {
    "openai": Surface(
        "/v1/chat/completions",
        json.dumps({"model": MODEL, "stream": True, "messages": [{"role": "user", "content": "Tell me a story."}]}),
    ),
    "native": Surface("/api/v1/generate", json.dumps({"model": MODEL, "stream": True, "prompt": "Tell me a story."})),
}
