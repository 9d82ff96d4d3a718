"""A defect in the product, for tests of what becomes of one: by `SLUICE_TEST_SABOTAGE` (see tests/support/inside)."""

from typing import Any

# A simulated fault at this token is none of an upstream's, but an exception that nobody expects.
AT_TOKEN = 7


def install() -> None:
    """Have the simulator fail by itself."""
    from app.providers.simulator import Simulator

    as_it_is = Simulator._fault

    async def fail(self: Simulator, fault: Any, index: int) -> None:
        if fault is not None and index == fault.at_token == AT_TOKEN:
            raise RuntimeError("a defect that a test put here")
        await as_it_is(self, fault, index)

    setattr(Simulator, "_fault", fail)  # noqa: B010 - mypy takes no method in another's place
