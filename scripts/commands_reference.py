"""Writes README.md's list of commands: what `make help` says.

`python -m scripts.commands_reference`; with `--check`, only says whether the list is up to date.
"""

import re
import sys

from scripts.regions import HOME, main, table

DOCUMENT = "README.md"
# As `make help` finds them.
TARGET = re.compile(r"^([a-z0-9-]+):.*?## (.*)$", re.MULTILINE)


def regions() -> dict[str, str]:
    targets = TARGET.findall((HOME / "Makefile").read_text(encoding="utf-8"))
    return {"commands": table(["command", "what it does"], [[f"`make {name}`", text] for name, text in targets])}


if __name__ == "__main__":
    sys.exit(main(DOCUMENT, regions()))
