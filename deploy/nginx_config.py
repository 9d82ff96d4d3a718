"""Renders nginx/ into a prefix: copies the files and fills in the templates, as the official image's envsubst would."""

import math
import re
import shutil
from collections.abc import Mapping
from pathlib import Path

SOURCE = Path(__file__).resolve().parent.parent / "nginx"
PLACEHOLDER = re.compile(r"\$\{(\w+)\}")


def values(*, listen: str, sockets: list[Path], waits: Mapping[str, float]) -> dict[str, str]:
    """The templates' values for one deployment. `waits` has the names of deploy/timeouts.yaml."""
    return {
        "SLUICE_LISTEN": listen,
        "SLUICE_UPSTREAM_SERVERS": "\n    ".join(f'server "unix:{path}" max_fails=0;' for path in sockets),
        "SLUICE_NGINX_READ_SECONDS": str(math.ceil(waits["nginx_read_seconds"])),
        "SLUICE_NGINX_UPSTREAM_KEEPALIVE_SECONDS": str(int(waits["nginx_upstream_keepalive_seconds"])),
    }


def fill_in(template: str, values: dict[str, str]) -> str:
    """`template` with each `${NAME}` replaced; a name without a value is a KeyError, never an empty string."""
    return PLACEHOLDER.sub(lambda match: values[match[1]], template)


def render(prefix: Path, values: dict[str, str], source: Path = SOURCE) -> Path:
    """Writes the configuration into `prefix`, replacing an earlier one, and returns the main file."""
    prefix.mkdir(parents=True, exist_ok=True)
    for folder in ("conf.d", "snippets"):
        shutil.rmtree(prefix / folder, ignore_errors=True)
    shutil.copytree(source / "snippets", prefix / "snippets")
    (prefix / "conf.d").mkdir()
    for template in sorted((source / "templates").glob("*.template")):
        (prefix / "conf.d" / template.stem).write_text(fill_in(template.read_text(), values))
    return Path(shutil.copy(source / "nginx.conf", prefix / "nginx.conf"))
