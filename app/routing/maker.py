"""What a stream is made by: the upstreams of a model, or a batch over them."""

from collections.abc import AsyncGenerator
from typing import Protocol

from app.events import Done, Reset, Token
from app.providers.base import GenerationRequest, Pour
from app.routing.bill import Bill
from app.routing.route import Resume
from app.routing.ways import Readers


class Making(Protocol):
    """One generation."""

    def events(self, pour: Pour) -> AsyncGenerator[Token | Done | Reset, None]: ...


class Maker(Protocol):
    """See `Route`."""

    @property
    def resume(self) -> Resume: ...

    def seconds_within(self, bound: float) -> float: ...

    def begin(self, request: GenerationRequest, said: str, readers: Readers, bill: Bill) -> Making: ...
