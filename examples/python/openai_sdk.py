#!/usr/bin/env python3
"""Streams an answer with the unmodified openai SDK: only the base URL is Sluice's.

    pip install openai
    SLUICE_URL=http://127.0.0.1:8080 python openai_sdk.py "Why is the sky blue?"

Prints the text as it comes. Exit code 1 for anything but a complete answer. The SDK raises what the stream reports as
an error, but is silent about one that just stops: a complete answer has said its `finish_reason`.
"""

import os
import sys
from collections.abc import Iterator

from openai import OpenAI, OpenAIError

URL = os.environ.get("SLUICE_URL", "http://127.0.0.1:8080")
# Sluice sends a heartbeat every 15 s, so twice that without a byte means that the connection is dead.
SILENCE_SECONDS_MAX = 30


class IncompleteStream(Exception):
    """The stream stopped without saying how it ended."""


def tokens(client: OpenAI, model: str, prompt: str) -> Iterator[str]:
    """The answer's tokens.

    Raises:
        OpenAIError: the server says what went wrong, or cannot be reached.
        IncompleteStream: nobody says anything.
    """
    finish_reason = None
    with client.chat.completions.create(
        model=model, messages=[{"role": "user", "content": prompt}], stream=True
    ) as chunks:
        for chunk in chunks:
            for choice in chunk.choices:
                yield choice.delta.content or ""
                finish_reason = choice.finish_reason or finish_reason
    if finish_reason is None:
        raise IncompleteStream("the stream stopped without saying how it ended")


def main() -> int:
    # The SDK insists on a key; a server without authentication ignores it.
    key = os.environ.get("SLUICE_API_KEY", "none")
    try:
        with OpenAI(base_url=f"{URL.rstrip('/')}/v1", api_key=key, timeout=SILENCE_SECONDS_MAX) as client:
            model = os.environ.get("SLUICE_MODEL") or client.models.list().data[0].id
            for token in tokens(client, model, " ".join(sys.argv[1:]) or "Why is the sky blue?"):
                print(token, end="", flush=True)
    except (OpenAIError, IncompleteStream) as error:
        print(f"\nerror: {error}", file=sys.stderr)
        return 1
    print()
    return 0


if __name__ == "__main__":
    sys.exit(main())
