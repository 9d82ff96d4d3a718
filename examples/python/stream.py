#!/usr/bin/env python3
"""Streams an answer from POST /api/v1/generate, with nothing but the standard library.

    SLUICE_URL=http://127.0.0.1:8080 python stream.py "Why is the sky blue?"

Prints the text as it comes. Exit code 1 for anything but a complete answer: a stream ends in exactly one `done` or
`error` event, so one that just stops is incomplete, whatever text has come.
"""

import codecs
import http.client
import io
import json
import os
import sys
from collections.abc import Iterable, Iterator
from typing import Any
from urllib.parse import urlsplit

URL = os.environ.get("SLUICE_URL", "http://127.0.0.1:8080")
# Sluice sends a heartbeat every 15 s, so twice that without a byte means that the connection is dead.
SILENCE_SECONDS_MAX = 30


class StreamError(Exception):
    """There is no complete answer."""


def lines(response: http.client.HTTPResponse) -> Iterator[str]:
    """The lines of the body, each as soon as it is complete.

    A character may be split between two reads, and so may CRLF; the decoders remember. `str.splitlines()` would be
    wrong: it also splits at characters, such as U+2028, that do not end a line of an event stream.
    """
    decoder = io.IncrementalNewlineDecoder(codecs.getincrementaldecoder("utf-8-sig")(), translate=True)
    rest = ""
    while data := response.read1(65_536):
        *complete, rest = (rest + decoder.decode(data)).split("\n")
        yield from complete


def events(lines: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Name and data of each event. Comments, such as heartbeats, and other fields are passed over."""
    name, data = "", []
    for line in lines:
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if field == "event":
            name = value
        elif field == "data":
            data.append(value)
        elif not line:  # an empty line ends the event
            if data:
                yield name or "message", "\n".join(data)
            name, data = "", []


def request(body: dict[str, Any]) -> http.client.HTTPResponse:
    """The response to a POST, once its headers are there."""
    address = urlsplit(URL)
    kind = http.client.HTTPSConnection if address.scheme == "https" else http.client.HTTPConnection
    connection = kind(address.netloc, timeout=SILENCE_SECONDS_MAX)
    headers = {"Content-Type": "application/json", "Accept": "text/event-stream"}
    connection.request("POST", f"{address.path.rstrip('/')}/api/v1/generate", json.dumps(body), headers)
    response = connection.getresponse()
    if response.status != http.client.OK:  # nothing has been streamed yet, so an error is a plain HTTP answer
        raise StreamError(f"HTTP {response.status}: {response.read().decode(errors='replace')}")
    return response


def tokens(prompt: str) -> Iterator[str]:
    """The answer's tokens.

    Raises:
        StreamError: the answer is not complete.
    """
    for name, data in events(lines(request({"prompt": prompt, "stream": True}))):
        if name == "token":
            token = json.loads(data)
            if token["type"] == "content":
                yield token["token"]
        elif name == "error":
            error = json.loads(data)
            raise StreamError(f"{error['code']}: {error['message']}")
        elif name == "done":
            return
    raise StreamError("the stream stopped without saying how it ended")


def main() -> int:
    try:
        for token in tokens(" ".join(sys.argv[1:]) or "Why is the sky blue?"):
            print(token, end="", flush=True)
    except (StreamError, OSError, http.client.HTTPException) as error:
        print(f"\nerror: {str(error) or type(error).__name__}", file=sys.stderr)
        return 1
    print()
    return 0


if __name__ == "__main__":
    sys.exit(main())
