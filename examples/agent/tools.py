"""The agent's two tools: a read-only question to a database, and a search in a few notes."""

import re
import sqlite3
from contextlib import closing
from pathlib import Path
from time import monotonic

from langchain_core.tools import tool

HERE = Path(__file__).parent
ROWS_MAX = 20
QUERY_SECONDS_MAX = 1.0
STEPS_BETWEEN_LOOKS = 10_000
READING = {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION}


@tool
def query_rivers(sql: str) -> str:
    """Ask the table rivers(name, length_km, mouth, countries) of European rivers one SELECT."""
    with closing(sqlite3.connect(f"file:{HERE / 'rivers.sqlite'}?mode=ro", uri=True)) as database:
        # A model writes the query, and whoever talks to the model.
        database.set_authorizer(lambda action, *_: sqlite3.SQLITE_OK if action in READING else sqlite3.SQLITE_DENY)
        deadline = monotonic() + QUERY_SECONDS_MAX
        database.set_progress_handler(lambda: monotonic() > deadline, STEPS_BETWEEN_LOOKS)
        try:
            rows = database.execute(sql).fetchmany(ROWS_MAX)
        except sqlite3.Error as error:
            return f"The database refused: {error}"
    return "\n".join(", ".join(str(value) for value in row) for row in rows) or "No rows."


@tool
def search_notes(question: str) -> str:
    """Find the note on waterways that says most about a question."""
    asked = _words(question)
    notes = [path.read_text(encoding="utf-8") for path in sorted((HERE / "notes").glob("*.md"))]
    best = max(notes, key=lambda note: sum(_words(note).count(word) for word in set(asked)))
    return best if set(asked) & set(_words(best)) else "No note says anything about that."


def _words(text: str) -> list[str]:
    """Without the short ones, which are everywhere, and without plurals."""
    return [word.removesuffix("s") for word in re.findall(r"[a-z]{4,}", text.lower())]
