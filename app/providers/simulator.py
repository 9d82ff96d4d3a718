"""The embedded upstream: answers anywhere, at a settable pace, and always says the same to the same request.

Token `i` depends on the request and on `i` alone, so a text can be taken up at any place without making what precedes.
It stands for a remote model, faults included; it is not one, and owns no connection.
"""

import asyncio
from collections.abc import AsyncGenerator
from hashlib import blake2b

import msgspec

from app.errors import UpstreamError, UpstreamInvalid, UpstreamStalled, UpstreamTruncated
from app.events import Done, Token, Usage
from app.providers.base import Fault, GenerationRequest, Pour, SimulatorOptions
from app.providers.words import words

FIRST_TOKEN_MS = 50.0
TOKENS_PER_SECOND = 30.0
YIELD_EVERY_TOKENS = 16  # an unpaced stream still lets its neighbours run

# Some words take two, three or four bytes a character, so that whoever cuts text between bytes is found out.
WORDS = (  # noqa: SIM905 - a paragraph reads better than 150 lines
    "a able air all also and answer any as at back be before begin between both bring but by call carry change close "
    "come could day deep do each end even far few find first flow for form from gate give go good great hand have head "
    "hear here high hold how if in into it keep know land last lead leave level light line little long look made make "
    "many more most move much must near never new next no not now of off old on one only open or other our out over "
    "own pass place point press put reach rest right rise river run same sea see set should show side slow small so "
    "some stand start still stop stream such take tell than that the then there this through time to turn under until "
    "up use valve very wait want water way weir well what when where which while will with work year niño über façade "
    "naïve 水 流れ поток 🌊 ποτάμι"
).split()
STOPS = (". ", ", ", ", ", "; ", ".\n")


class Simulator:
    """A `Provider` whose text, pace and faults follow `request.simulator`.

    Args:
        idle_seconds: a simulated stall ends after this long, as a real one would.
        first_token_seconds: the same for a stall before the first token.
    """

    def __init__(self, idle_seconds: float = 30, first_token_seconds: float = 60) -> None:
        self._idle_seconds = idle_seconds
        self._first_token_seconds = first_token_seconds

    async def generate(
        self, request: GenerationRequest, pour: Pour | None = None
    ) -> AsyncGenerator[Token | Done, None]:
        del pour  # there is always a task of its own, which keeps the pace
        options = request.simulator or SimulatorOptions()
        key = _key(request, options)
        wanted = options.tokens if options.tokens is not None else 40 + key[0] % 80
        count = min(wanted, request.max_tokens or wanted)
        start = _tokens_in(key, request.prefix)
        clock = asyncio.get_running_loop().time
        interval = 1 / options.tokens_per_second if options.tokens_per_second else 0.0
        if options.tokens_per_second is None:
            interval = 1 / TOKENS_PER_SECOND
        first_ms = FIRST_TOKEN_MS if options.first_token_ms is None else options.first_token_ms
        due = clock() + first_ms / 1000
        for index in range(start, count):
            await self._fault(options.fault, index)
            # Each token has its own due time, so that a late one does not delay all that follow.
            if (wait := due - clock()) > 0:
                await asyncio.sleep(wait)
            elif index % YIELD_EVERY_TOKENS == 0:
                await asyncio.sleep(0)
            yield Token(token_text(key, index))
            due += interval * _stretch(key, index, options.jitter or 0.0)
        await self._fault(options.fault, count)
        yield Done("length" if count < wanted else "stop", Usage(words(request.messages), count))

    async def _fault(self, fault: Fault | None, index: int) -> None:
        if fault is None or fault.at_token != index:
            return
        if fault.kind == "stall":
            await asyncio.sleep(self._idle_seconds if index else self._first_token_seconds)
            raise UpstreamStalled("The upstream stopped sending tokens.")
        if fault.kind == "die":
            raise UpstreamTruncated("The upstream's connection ended before the answer was complete.")
        raise UpstreamError("The upstream reported an error.")

    async def aclose(self) -> None:
        """Nothing is held."""


def token_text(key: bytes, index: int) -> str:
    """The `index`-th token of the text that `key` stands for, with the white space that follows it."""
    digest = blake2b(index.to_bytes(4, "big"), key=key, digest_size=4).digest()
    word = WORDS[int.from_bytes(digest[:2], "big") % len(WORDS)]
    if index == 0:
        word = word.capitalize()
    return word + (STOPS[digest[3] % len(STOPS)] if digest[2] < 32 else " ")


def _key(request: GenerationRequest, options: SimulatorOptions) -> bytes:
    # The model's name is left out: two simulated upstreams of one model then agree, as replicas do.
    # Sorted keys, since the same request may reach another worker through another encoder.
    identity = msgspec.json.encode((options.seed, request.messages, request.temperature), order="sorted")
    return blake2b(identity, digest_size=16).digest()


def _tokens_in(key: bytes, prefix: str) -> int:
    """How many of the text's first tokens make up `prefix`."""
    index = position = 0
    while position < len(prefix):
        token = token_text(key, index)
        if not prefix.startswith(token, position):
            raise UpstreamInvalid("The text so far is not one that this upstream began.")
        position += len(token)
        index += 1
    return index


def _stretch(key: bytes, index: int, jitter: float) -> float:
    """A factor in 1 ± `jitter`, the same at every run."""
    if not jitter:
        return 1.0
    digest = blake2b(index.to_bytes(4, "big"), key=key, digest_size=2, person=b"jitter").digest()
    return 1 + jitter * (int.from_bytes(digest, "big") / 32_767.5 - 1)
