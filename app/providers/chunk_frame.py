"""What the chunks of one answer have in common: nearly all differ in their text alone.

Such a chunk need not be parsed, which takes five times as long as looking at what is around its text.
"""

from app.providers.openai_chunks import content

# Where something else changes in every chunk (a nonce, a time), looking for a frame is in vain.
LESSONS_MAX = 3


class ChunkFrame:
    """The bytes before and behind the text, learnt from a chunk that was parsed."""

    def __init__(self) -> None:
        self._head = self._tail = b""
        self._lessons_left = LESSONS_MAX

    def text(self, payload: bytes) -> str | None:
        """The text of a chunk that brings text and nothing else; empty or None for any other."""
        if self._tail and payload.startswith(self._head) and payload.endswith(self._tail):
            try:
                text = payload[len(self._head) : -len(self._tail)].decode()
            except UnicodeDecodeError:
                return None
            # Whatever JSON would have escaped, or a line end may hide in, is the parser's.
            if text and text.isprintable() and '"' not in text and "\\" not in text:
                return text
        text_or_none = content(payload)
        if text_or_none and self._lessons_left:
            self._learn(payload, text_or_none)
        return text_or_none

    def _learn(self, payload: bytes, text: str) -> None:
        # The last: names and the stream's id, which may say the same, stand before it.
        head, found, tail = payload.rpartition(b'"%b"' % text.encode("utf-8", "surrogatepass"))
        if not found:
            return  # it is escaped
        self._lessons_left -= 1
        other = text + "."
        # The proof: another text in that place is the chunk's. Elsewhere in the chunk the same text may stand as well.
        if content(head + b'"%b"' % other.encode("utf-8", "surrogatepass") + tail) == other:
            self._head, self._tail = head + b'"', b'"' + tail
