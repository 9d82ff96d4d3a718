"""Writes the map of modules in ARCHITECTURE.md: each module under app/ and deploy/, by the first sentence it says of
itself.

`python -m scripts.module_map`; with `--check`, only says whether the map is up to date.
"""

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from scripts.regions import HOME, main, table

DOCUMENT = "ARCHITECTURE.md"
FOLDERS = ("app", "deploy")


def modules() -> Iterator[Path]:
    """All that say something, the folder's own before those below it; package marks are empty."""
    for folder in FOLDERS:
        found = [path for path in (HOME / folder).rglob("*.py") if path.stat().st_size]
        yield from sorted(found, key=lambda path: (len(path.parts) > len(HOME.parts) + 2, path))


def sentence(path: Path) -> str:
    """The first one of the module's docstring."""
    said = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    paragraph = " ".join(said.split("\n\n")[0].split())
    found = re.match(r".*?\.(?= [A-Z`]|$)", paragraph)
    return found[0] if found else paragraph


def module_map() -> str:
    by_folder: dict[str, list[list[str]]] = {}
    for path in modules():
        name = path.relative_to(HOME)
        by_folder.setdefault(f"{name.parent}/", []).append([f"[`{name.name}`]({name})", sentence(path)])
    return "\n\n".join(f"**{folder}**\n\n{table(['module', 'owns'], rows)}" for folder, rows in by_folder.items())


def regions() -> dict[str, str]:
    return {"modules": module_map()}


if __name__ == "__main__":
    sys.exit(main(DOCUMENT, regions()))
