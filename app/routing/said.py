"""What a stream has said so far, as far as whoever goes on with it must know."""

from collections.abc import Sequence

# Pieces are joined when there are so many: one by one they would take ten times their text's memory.
PIECES_MAX = 64


class Said:
    """The content of one stream, and what besides it a reader has seen."""

    def __init__(self, text: str = "") -> None:
        self._text = text
        self._pieces: list[str] = []
        # A reader who came with text may have seen thoughts before it.
        self.thought = bool(text)
        self.called = False
        self.content_tokens = 0

    @property
    def text(self) -> str:
        self._join()
        return self._text

    @property
    def anything(self) -> bool:
        """Whether a reader has something that cannot be said otherwise now. A thought is no part of the answer."""
        return self.called or bool(self._text or self._pieces)

    def add(self, text: str) -> None:
        """Content was delivered."""
        self.extend((text,))

    def extend(self, texts: Sequence[str]) -> None:
        """Pieces of it were."""
        self._pieces += texts
        if len(self._pieces) >= PIECES_MAX:
            self._join()

    def _join(self) -> None:
        if self._pieces:
            self._text += "".join(self._pieces)
            self._pieces.clear()
