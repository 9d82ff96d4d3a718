"""Files that are made from the code as a whole."""

import sys
from collections.abc import Mapping
from pathlib import Path

from scripts.regions import HOME


def main(files: Mapping[Path, str]) -> int:
    """Write them; with `--check`, only say whether they are there and right: the exit code is 1 if one is not."""
    old = [path for path, text in files.items() if not path.exists() or path.read_text(encoding="utf-8") != text]
    for path in old:
        if "--check" in sys.argv[1:]:
            print(f"{path.relative_to(HOME)}: not what the code says; run `make generate`", file=sys.stderr)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(files[path], encoding="utf-8")
    return 1 if old and "--check" in sys.argv[1:] else 0
