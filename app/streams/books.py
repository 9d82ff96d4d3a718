"""Keeps the books of what generations used, by model and by tenant; told once of each that is over on this worker.

Each also has its line in the log, of the same outcome where nobody is left to go on with it.
"""

from collections.abc import Callable

import structlog

from app.observability.figures import figures
from app.observability.metrics import COST, STREAMS, TENANT_STREAMS, TENANT_TOKENS, TOKENS
from app.streams.account import Account
from app.streams.outcome import outcome_of_code

log = structlog.get_logger(__name__)


class Books:
    """One for each worker.

    Args:
        shared_log: whether workers of other machines read the same log.
        pod_draining: whether all workers of this machine are about to stop.
    """

    def __init__(self, shared_log: bool, pod_draining: Callable[[], bool]) -> None:
        self._shared_log = shared_log
        self._pod_draining = pod_draining
        # Bound once: the module's logger is a proxy, in which each call finds nothing at first.
        self._log = log.bind()

    def enter(self, account: Account) -> None:
        """A generation is over here."""
        model, tenant = account.model, account.principal
        for direction, tokens in (("input", account.input_tokens), ("output", account.output_tokens)):
            figures.add(TOKENS, tokens, model, direction)
            figures.add(TENANT_TOKENS, tokens, tenant, direction)
        if account.cost:
            figures.add(COST, account.cost, model)
        outcome = self.outcome(account)
        self._log.info("generation", **account.fields() | ({"outcome": outcome} if outcome == "drained" else {}))
        if outcome in {"moved", "drained"}:
            # Every other end is counted where it is delivered: whoever ends a stream is not always who generated it.
            figures.add(STREAMS, 1, model, account.surface, outcome)
        figures.add(TENANT_STREAMS, 1, tenant, outcome)

    def outcome(self, account: Account) -> str:
        """In a word of `OUTCOMES`."""
        if account.outcome == "moved":
            # Without a log that others read, nobody is left who could go on.
            return "drained" if self._pod_draining() and not self._shared_log else "moved"
        if account.outcome == "completed":
            return "spliced" if account.rescued else "completed"
        return outcome_of_code(account.outcome)
