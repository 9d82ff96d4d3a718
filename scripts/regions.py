"""Parts of documents that are made from the code, between two marks, so that people can write around them."""

import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

HOME = Path(__file__).resolve().parent.parent


def filled(text: str, regions: Mapping[str, str]) -> str:
    """`text` with each region's content between its marks.

    Raises:
        ValueError: a region has no marks in the text.
    """
    for name, content in regions.items():
        found = re.search(rf"<!-- begin {name}: [^\n]*-->\n(.*?)<!-- end {name} -->", text, re.DOTALL)
        if found is None:
            raise ValueError(f"no region {name!r}")
        text = f"{text[: found.start(1)]}\n{content.strip()}\n\n{text[found.end(1) :]}"
    return text


def main(document: str, regions: Mapping[str, str]) -> int:
    """Write the regions into `document`; with `--check`, only say whether they are there: the exit code is 1 if not."""
    path = HOME / document
    before = path.read_text(encoding="utf-8")
    after = filled(before, regions)
    if "--check" not in sys.argv[1:]:
        path.write_text(after, encoding="utf-8")
    elif before != after:
        print(f"{document}: not what the code says; run `make generate`", file=sys.stderr)
        return 1
    return 0


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
