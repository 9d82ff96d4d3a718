"""Changes the configuration of a chain's running NGINX, as somebody who deploys it might."""

import contextlib
import os
import re
import signal

import psutil

from tests.support.chain import Chain
from tests.support.workers import until


def reconfigure(chain: Chain, file: str, directive: str, value: str, folder: str = "values") -> None:
    """Give a directive of the folder another value, and wait until no process of before takes connections."""
    conf = chain.state_dir / "nginx" / folder / file
    changed, count = re.subn(rf"^(\s*{directive}) [^;]+;", rf"\g<1> {value};", conf.read_text(), flags=re.MULTILINE)
    assert count == 1, f"{count} of {directive} in {file}"
    conf.write_text(changed)
    before = nginx_processes(chain)
    os.kill(chain.nginx_pid(), signal.SIGHUP)
    until(lambda: not before & nginx_processes(chain), 10, "NGINX has reloaded")


def nginx_processes(chain: Chain) -> set[int]:
    """Those that take connections."""
    found = set()
    for child in psutil.Process(chain.nginx_pid()).children():
        with contextlib.suppress(psutil.NoSuchProcess):  # it may end while we look
            if "shutting down" not in " ".join(child.cmdline()):
                found.add(int(child.pid))
    return found
