"""What must hold before anything is started. Each check raises `Refused` with one line for the person who ran it."""

import os
import shutil
import socket
import subprocess
from pathlib import Path

INSTALLER = Path(__file__).resolve().parent.parent / "scripts" / "install-system-packages.sh"
INSTALL_SECONDS_MAX = 100

# sockaddr_un holds 108 bytes with the final NUL; a worker binds under a temporary name, which needs some of them.
SOCKET_PATH_BYTES_MAX = 107
SOCKET_TEMPORARY_BYTES = 16


class Refused(Exception):
    """Cannot start; the message is one line, `status` the exit code."""

    def __init__(self, message: str, status: int = 1) -> None:
        super().__init__(message)
        self.status = status


def split_address(setting: str, address: str) -> tuple[str, int]:
    """`host:port` or `[v6]:port`, in two."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 65_536:
        raise Refused(f"{setting}: should be host:port (it is {address!r})", status=2)
    return host.strip("[]"), int(port)


def port_is_free(setting: str, host: str, port: int, example: str) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        # As NGINX binds: connections of an earlier run that are still closing do not count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise Refused(
                f"{setting}: port {port} on {host} cannot be used: {error.strerror}. Choose another: {example}"
            ) from None


def socket_paths_fit(paths: list[Path]) -> None:
    for path in paths:
        length_bytes = len(os.fsencode(path)) + SOCKET_TEMPORARY_BYTES
        if length_bytes > SOCKET_PATH_BYTES_MAX:
            raise Refused(
                f"SLUICE_STATE_DIR: the socket {path} would need {length_bytes} bytes, and a Unix socket's path has "
                f"at most {SOCKET_PATH_BYTES_MAX}: choose a shorter folder",
                status=2,
            )


def usable_state_dir(path: Path) -> None:
    """The folder's name goes into the configuration of NGINX and supervisor, which cannot escape everything."""
    if any(character in "\"'\\${};#%" or not character.isprintable() for character in str(path)):
        raise Refused(f"SLUICE_STATE_DIR: no quotes, backslashes or any of ${{}};#% in it, please: {path}", status=2)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Refused(f"SLUICE_STATE_DIR: {path}: {error.strerror}", status=2) from None
    if not os.access(path, os.W_OK | os.X_OK):
        raise Refused(f"SLUICE_STATE_DIR: {path}: not writable", status=2)


def find_program(program: str, package: str) -> str:
    """A program's path; installs it where that can be done without asking anyone."""
    # /usr/sbin: where packages put some, and often not on an ordinary user's path.
    search = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/local/sbin", "/usr/sbin"])
    found = shutil.which(program, path=search)
    if found is None and os.geteuid() == 0 and shutil.which("apt-get"):
        print(f"run: {program} is missing; installing it", flush=True)
        subprocess.run([INSTALLER, package], timeout=INSTALL_SECONDS_MAX, check=False)
        found = shutil.which(program, path=search)
    if found is None:
        raise Refused(f"{program} is missing: install it (Debian: apt-get install {package}) and run again")
    return found


def find_nginx() -> str:
    return find_program("nginx", "nginx-light")


def nginx_accepts(command: list[str]) -> None:
    result = subprocess.run([*command, "-t", "-q"], capture_output=True, text=True, timeout=30, check=False)
    if result.returncode:
        raise Refused(f"nginx refuses its configuration: {' '.join(result.stderr.split())}")
