"""Writes deploy/LOGS.md's tables: every field of a log line.

`python -m scripts.logs_reference`; with `--check`, only says whether the tables are up to date.
"""

import sys

from app.observability import log_fields
from scripts.regions import main, table

DOCUMENT = "deploy/LOGS.md"


def _table(fields: dict[str, str]) -> str:
    return table(["field", "what it says"], [[f"`{name}`", words] for name, words in fields.items()])


def regions() -> dict[str, str]:
    return {
        "always": _table(log_fields.ALWAYS),
        "context": _table(log_fields.CONTEXT),
        "request": _table(log_fields.REQUEST),
        "socket": _table(log_fields.SOCKET),
        "generation": _table(log_fields.GENERATION),
        "others": _table(log_fields.OTHERS),
    }


if __name__ == "__main__":
    sys.exit(main(DOCUMENT, regions()))
