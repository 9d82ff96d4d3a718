"""Writes the table of error codes in app/api/PROTOCOL.md from the tree in app/errors.py.

`python -m scripts.errors_reference`; with `--check`, only says whether the table is up to date.
"""

import sys
from collections.abc import Iterator

from app.errors import SluiceError, UpstreamRejected
from app.events import Failed
from scripts.regions import main, table

DOCUMENT = "app/api/PROTOCOL.md"
REJECTIONS = range(400, 600)


def tree(error: type[SluiceError] = SluiceError) -> Iterator[type[SluiceError]]:
    """Every error that can be raised, parents before their children."""
    for child in error.__subclasses__():
        yield child
        yield from tree(child)


def errors_table() -> str:
    rows: dict[str, list[str]] = {}
    for error in tree():
        found = _rejections() if error is UpstreamRejected else [_row(error("").as_event(), error)]
        for row in found:
            rows.setdefault(row[0], row)  # a rejection of 500 and more has the code of its parent
    return table(["code", "status", "retry", "what happened"], list(rows.values()))


def _row(failed: Failed, error: type[SluiceError]) -> list[str]:
    return [f"`{failed.code}`", str(failed.status), "yes" if failed.retryable else "no", _meaning(error)]


def _rejections() -> list[list[str]]:
    """By code: an upstream's status goes through as it is, and decides the code and whether to try again."""
    by_code: dict[str, list[Failed]] = {}
    for number in REJECTIONS:
        failed = UpstreamRejected(number, "").as_event()
        by_code.setdefault(failed.code, []).append(failed)
    rows = []
    for code, group in by_code.items():
        status = str(group[0].status) if len(group) == 1 else "the upstream's"
        again = [failed.status for failed in group if failed.retryable]
        word = "no" if not again else "yes" if len(again) == len(group) else f"{', '.join(map(str, again))} only"
        rows.append([f"`{code}`", status, word, _meaning(UpstreamRejected)])
    return rows


def _meaning(error: type[SluiceError]) -> str:
    return (error.__doc__ or "").splitlines()[0]


def regions() -> dict[str, str]:
    return {"errors": errors_table()}


if __name__ == "__main__":
    sys.exit(main(DOCUMENT, regions()))
