"""Who asks, where nobody is told from others."""

import pytest

from app.limits.memory_counters import MemoryCounters
from app.security.address import Addresses
from app.security.authenticator import ANONYMOUS, Authenticator
from app.security.bearer import Bearer
from app.security.tickets import Tickets
from app.tiers import EXAMPLES


@pytest.mark.parametrize("shown", [{}, {"authorization": "Bearer none"}, {"x-api-key": "x"}, {"authorization": "?"}])
async def test_without_anybody_to_know_everybody_is_anonymous_whatever_an_sdk_sends(shown: dict[str, str]) -> None:
    authenticator = Authenticator(False, EXAMPLES, Addresses(), Bearer((), EXAMPLES), Tickets(MemoryCounters(), 60.0))
    headers = [(name.encode(), value.encode()) for name, value in shown.items()]
    assert await authenticator.identify({"headers": headers, "query_string": b""}) is ANONYMOUS
