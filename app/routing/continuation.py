"""What of a further attempt's text is new to a reader who has the beginning already."""

from itertools import takewhile

from app.events import Token


class Differs(Exception):
    """The attempt says something else than what was said before."""


class Splice:
    """For an attempt that begins again: what it repeats is dropped, and the rest goes on behind it.

    Args:
        said: what the reader has.
    """

    def __init__(self, said: str) -> None:
        self._left = said

    @property
    def done(self) -> bool:
        """Whether all of it was repeated."""
        return not self._left

    def take(self, token: Token) -> Token | None:
        """What of `token` goes beyond what was said.

        Raises:
            Differs: the attempt says something else.
        """
        text = token.text
        if self._left.startswith(text):
            self._left = self._left[len(text) :]
            return None
        if not text.startswith(self._left):
            raise Differs
        rest, self._left = text[len(self._left) :], ""
        return Token(rest)

    def finish(self) -> Token | None:
        """The attempt is over.

        Raises:
            Differs: it said less.
        """
        if self._left:
            raise Differs
        return None


class Echo:
    """For an attempt that was given the text so far: some servers say it again before they go on.

    A continuation may begin like the whole text, so it is held back for as long as it does.

    Args:
        said: what the reader has.
        given: what the upstream was given, without white space at its end, which some servers do not take.
    """

    def __init__(self, said: str, given: str) -> None:
        self._said: str | None = said  # None: it is not being said again
        # The reader has it, and the upstream, which was not given it, says it first.
        self._blank = said[len(given) :]
        self._held = ""
        self.done = False

    def take(self, token: Token) -> Token | None:
        """What of the text so far is new; None while that is not known."""
        self._held += token.text
        if self._said is not None and self._held != self._said and self._said.startswith(self._held):
            return None
        return self._release()

    def finish(self) -> Token | None:
        """The attempt is over: what was held back was new."""
        return self._release() if self._held else None

    def _release(self) -> Token | None:
        text, self._held = self._held, ""
        if self._said is not None and text.startswith(self._said):
            text, self._blank = text[len(self._said) :], ""
        self._said = None
        both = zip(text, self._blank, strict=False)
        same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], both))
        text, self._blank = text[same:], self._blank[same:]
        # The blank may come in pieces; whatever else comes is new, and so is all behind it.
        self.done = bool(text) or not self._blank
        return Token(text) if text else None
