"""Where tokens come from: the one boundary that every upstream implements."""

from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Any, Literal, Protocol

import msgspec

from app.events import Done, Token


# Records in the log hold these: what a later version adds must not keep an earlier one, beside it in a rolling upgrade,
# from reading them. The API refuses what it does not know by its own schemas.
class Fault(msgspec.Struct, frozen=True):
    """A failure for the simulator to act out once it has sent `at_token` tokens."""

    kind: Literal["error", "stall", "die"]
    at_token: int = 0


class SimulatorOptions(msgspec.Struct, frozen=True):
    """How a simulated upstream behaves; None leaves the simulator's default."""

    seed: int = 0
    first_token_ms: float | None = None
    tokens_per_second: float | None = None
    tokens: int | None = None
    jitter: float | None = None
    fault: Fault | None = None


class GenerationRequest(msgspec.Struct, frozen=True):
    """What a caller wants generated, whatever surface it came by.

    `messages` are OpenAI's chat messages. `extra` are fields of the caller's body that Sluice does not know: they are
    passed on to an upstream of the same protocol. `headers` are trace headers for the upstream. `prefix` is content
    that an earlier attempt delivered already: a provider that can continues behind it.
    """

    model: str
    messages: list[dict[str, Any]]
    max_tokens: int | None = None
    temperature: float | None = None
    simulator: SimulatorOptions | None = None
    extra: dict[str, Any] = {}
    headers: dict[str, str] = {}
    prefix: str = ""

    def behind(self, prefix: str) -> "GenerationRequest":
        """The same request, to be answered from behind `prefix` on."""
        return msgspec.structs.replace(self, prefix=prefix)


# Takes the texts of tokens of content at once, all of them; or none, and says False.
Pour = Callable[[Sequence[str]], bool]


class Provider(Protocol):
    """Yields `Token`s (index 0), then one `Done`; raises an `UpstreamError` for any other end.

    Once it has yielded a token, and while it is awaited, a provider may `pour` what follows past the iterator, which
    saves waking a task for every token; what is not taken it yields.

    The iterator is consumed by one task and closed by it (`aclose`) whatever happens; closing must end the upstream's
    work within a second. A provider bounds each of its own waits and sends nothing before the first `__anext__`.
    """

    def generate(self, request: GenerationRequest, pour: Pour | None = None) -> AsyncGenerator[Token | Done, None]: ...

    async def aclose(self) -> None: ...
