"""How much was asked, where no upstream counted it."""

from typing import Any


def words(messages: list[dict[str, Any]]) -> int:
    """About as many tokens as the messages have: their words, for there is no tokenizer here."""
    count = 0
    for message in messages:
        content = message.get("content")
        if isinstance(content, str):
            count += len(content.split())
        elif isinstance(content, list):
            texts = (part.get("text") for part in content if isinstance(part, dict))
            count += sum(len(text.split()) for text in texts if isinstance(text, str))
    return count
