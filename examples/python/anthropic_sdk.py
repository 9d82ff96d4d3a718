#!/usr/bin/env python3
"""Streams an answer with the unmodified anthropic SDK: only the base URL is Sluice's.

    pip install anthropic
    SLUICE_URL=http://127.0.0.1:8080 python anthropic_sdk.py "Why is the sky blue?"

Prints the text as it comes. Exit code 1 for anything but a complete answer. The SDK raises what the stream reports as
an error, but is silent about one that just stops: a complete answer has said its `stop_reason`.
"""

import os
import sys
from collections.abc import Iterator

from anthropic import Anthropic, AnthropicError
from httpx2 import TransportError

URL = os.environ.get("SLUICE_URL", "http://127.0.0.1:8080")
# Sluice sends a heartbeat every 15 s, so twice that without a byte means that the connection is dead.
SILENCE_SECONDS_MAX = 30


class IncompleteStream(Exception):
    """The stream stopped without saying how it ended."""


def tokens(client: Anthropic, model: str, prompt: str) -> Iterator[str]:
    """The answer's tokens.

    Raises:
        AnthropicError: the server says what went wrong, or cannot be reached.
        TransportError: the connection broke.
        IncompleteStream: nobody says anything.
    """
    with client.messages.stream(model=model, max_tokens=1024, messages=[{"role": "user", "content": prompt}]) as answer:
        yield from answer.text_stream
        if answer.current_message_snapshot.stop_reason is None:
            raise IncompleteStream("the stream stopped without saying how it ended")


def main() -> int:
    # The SDK insists on a key; a server without authentication ignores it.
    key = os.environ.get("SLUICE_API_KEY", "none")
    try:
        with Anthropic(base_url=URL, api_key=key, timeout=SILENCE_SECONDS_MAX) as client:
            model = os.environ.get("SLUICE_MODEL") or client.models.list().data[0].id
            for token in tokens(client, model, " ".join(sys.argv[1:]) or "Why is the sky blue?"):
                print(token, end="", flush=True)
    except (AnthropicError, TransportError, IncompleteStream) as error:
        print(f"\nerror: {error}", file=sys.stderr)
        return 1
    print()
    return 0


if __name__ == "__main__":
    sys.exit(main())
