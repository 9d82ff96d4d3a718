"""Drives a provider as a producer does, and keeps what came."""

import asyncio
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from time import monotonic
from typing import Any

from app.errors import UpstreamError
from app.events import Done, Token
from app.providers.base import GenerationRequest, Provider
from tests.support.upstream import ScriptedUpstream
from tests.support.upstream_log import Entry


@dataclass
class Outcome:
    """All events of one generation, and how it ended."""

    tokens: list[Token] = field(default_factory=list)
    done: Done | None = None
    error: UpstreamError | None = None
    seconds: float = 0

    @property
    def text(self) -> str:
        return "".join(token.text for token in self.tokens if token.kind == "content")


def asked(model: str, **fields: Any) -> GenerationRequest:
    return GenerationRequest(model, fields.pop("messages", [{"role": "user", "content": "two words"}]), **fields)


async def collect(provider: Provider, model: str, **fields: Any) -> Outcome:
    outcome = Outcome()
    started = monotonic()

    def pour(texts: Sequence[str]) -> bool:
        # Refused now and then, as by a generation that waits for its log: both ways have to say the same.
        if len(outcome.tokens) % 5 == 4:
            return False
        outcome.tokens += map(Token, texts)
        return True

    try:
        async with aclosing(provider.generate(asked(model, **fields), pour)) as events:
            async for event in events:
                assert outcome.done is None, "something came after Done"
                if isinstance(event, Token):
                    outcome.tokens.append(event)
                else:
                    outcome.done = event
    except UpstreamError as error:
        outcome.error = error
    outcome.seconds = monotonic() - started
    return outcome


async def closed(upstream: ScriptedUpstream, model: str, seconds: float = 1) -> Entry:
    """The model's last generation, whose connection must be closed from here within `seconds`."""
    return await asyncio.to_thread(upstream.wait_closed, model, seconds)
