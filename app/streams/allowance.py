"""How much more a generation may say: text, and its caller's tokens."""

from collections.abc import Sequence

from app.errors import LimitExceeded
from app.events import Token
from app.routing.batch import TASKS
from app.streams.committer import PENDING_BYTES_MAX
from app.streams.generation import Generation


class Allowance:
    """What is left of one generation's bounds.

    Args:
        bytes_max: of all its text, in characters of it.
    """

    def __init__(self, bytes_max: int, generation: Generation) -> None:
        self._bytes_max = bytes_max
        self._bytes_left = bytes_max - len(generation.said)
        self._pause_at = self._bytes_left - PENDING_BYTES_MAX
        grant = generation.grant
        self._tokens_left = float("inf")
        # A batch's tokens are lines, each of a whole answer: it counts what is in them itself.
        if grant is not None and grant.output_tokens_max and generation.record.surface != TASKS:
            self._tokens_left = max(0, grant.output_tokens_max - generation.content_tokens)

    @property
    def used_up(self) -> bool:
        """Whether the next token needs more of the caller's account."""
        return self._tokens_left <= 0

    def extend(self, tokens: int) -> None:
        """So many more were taken."""
        self._tokens_left += tokens

    def spend(self, token: Token) -> None:
        """
        Raises:
            LimitExceeded: it would be too much.
        """
        self._bytes_left -= len(token.text)
        if self._bytes_left < 0:
            raise LimitExceeded(f"The stream reached its {self._bytes_max} bytes.")
        if self._tokens_left <= 0:
            raise LimitExceeded("The stream used up the tokens that its caller has left.")
        self._tokens_left -= 1

    def covers(self, texts: Sequence[str]) -> bool:
        """Spend a token for each, or none where that would be too much, or a pause is due behind them."""
        bytes_left = self._bytes_left - sum(map(len, texts))
        if bytes_left < 0 or bytes_left < self._pause_at or self._tokens_left < len(texts):
            return False
        self._bytes_left = bytes_left
        self._tokens_left -= len(texts)
        return True

    def pause_due(self) -> bool:
        """Whether the log has to come first for once: an upstream that has whole paragraphs ready is read without a
        pause, and few events are much text."""
        if self._bytes_left >= self._pause_at:
            return False
        self._pause_at = self._bytes_left - PENDING_BYTES_MAX
        return True
