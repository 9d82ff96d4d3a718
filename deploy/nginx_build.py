"""What an NGINX was built of: decides which files of nginx/versions/ are its."""

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

Version = tuple[int, ...]

# `<context>-[openssl-]<from|before>-<version>-<what it is about>`
NAME = re.compile(r"\w+-(?P<openssl>openssl-)?(?P<side>from|before)-(?P<version>[\d.]+)-[a-z0-9-]+")
LOOK_SECONDS_MAX = 10


@dataclass(frozen=True)
class Build:
    """Of one NGINX."""

    version: Version
    openssl: Version
    http3: bool

    def fits(self, name: str) -> bool:
        """Whether that file of nginx/versions/, without its suffix, is for this one."""
        found = NAME.fullmatch(name)
        assert found, f"nginx/versions/{name}.conf: the name does not say for which versions"
        has = self.openssl if found["openssl"] else self.version
        return (has >= _version(found["version"])) == (found["side"] == "from")


def look_at(nginx: str | Path) -> Build:
    """What it says of itself."""
    said = subprocess.run([nginx, "-V"], capture_output=True, text=True, timeout=LOOK_SECONDS_MAX, check=True).stderr
    number = re.search(r"nginx/([\d.]+)", said)
    # What it runs with, where that is another than what it was built with.
    openssl = re.search(r"running with OpenSSL ([\d.]+)", said) or re.search(r"OpenSSL ([\d.]+)", said)
    return Build(
        version=_version(number[1]) if number else (0,),
        openssl=_version(openssl[1]) if openssl else (0,),
        http3="--with-http_v3_module" in said,
    )


def _version(text: str) -> Version:
    return tuple(int(part) for part in text.split("."))
