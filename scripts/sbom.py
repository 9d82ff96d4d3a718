"""Writes the bill of materials that a lock amounts to, as CycloneDX: `python -m scripts.sbom requirements.lock`.

From the lock alone, so that it needs no network. What it has for other Pythons and systems is left out, as by the pip
of the Python that runs this; every other package is there, with its hashes.
"""

import json
import re
import sys
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from app.version import VERSION

ENTRY = re.compile(r"^[A-Za-z0-9].*$", re.MULTILINE)
HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})")


def components(lock: str) -> list[dict[str, Any]]:
    """Each package of the lock, in its order."""
    found: list[dict[str, Any]] = []
    for entry in ENTRY.findall(lock.replace("\\\n", " ")):
        requirement = Requirement(entry.partition("--hash=")[0])
        if requirement.marker is not None and not requirement.marker.evaluate():
            continue
        (pinned,) = requirement.specifier
        name = canonicalize_name(requirement.name)
        purl = f"pkg:pypi/{name}@{pinned.version}"
        hashes = [{"alg": "SHA-256", "content": digest} for digest in HASH.findall(entry)]
        component = {"type": "library", "bom-ref": purl, "name": name, "version": pinned.version, "purl": purl}
        found.append(component | {"hashes": hashes})
    return found


def document(lock: str) -> dict[str, Any]:
    """Without a date or a random number: the same lock gives the same bytes."""
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": {"type": "application", "bom-ref": "sluice", "name": "sluice", "version": VERSION}},
        "components": components(lock),
    }


if __name__ == "__main__":
    print(json.dumps(document(Path(sys.argv[1]).read_text()), indent=1))
