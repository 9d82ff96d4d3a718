"""Our images, built by buildah from their Dockerfiles on a base of Debian's packages; and processes in them.

These have a root that is read-only, as in a pod, but no container runtime. Needs to be root.
"""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from deploy.processes import die_with_parent
from tests.support.dockerfile import DOCKERFILE
from tests.support.launched import HOME

# libstdc++6: apt brings it into every image of Debian, and greenlet needs it.
PACKAGES = "python3,python3-venv,nginx-light,ca-certificates,libstdc++6"
BASE_SECONDS_MAX = 300
BUILD_SECONDS_MAX = 300
PROGRAMS = ("buildah", "mmdebstrap", "unshare", "chroot")
UID = 10_001
PIP_CONF = Path("/etc/pip.conf")
CERTIFICATES = Path("/etc/ssl/certs")


def missing() -> str:
    """Why nothing can be built here; empty where it can."""
    if os.geteuid() != 0:
        return "building images needs root"
    gone = [program for program in PROGRAMS if shutil.which(program) is None]
    return f"missing: {' '.join(gone)}" if gone else ""


class Images:
    """Use as a context manager. `root` is where an image's files are."""

    def __enter__(self) -> Self:
        self._store = Path(tempfile.mkdtemp(prefix="sluice-images-", dir="/tmp"))
        self._containers: dict[str, str] = {}
        try:
            self._make_base()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._buildah("rm", "--all")
        shutil.rmtree(self._store, ignore_errors=True)

    def build(self, target: str, dockerfile: Path = DOCKERFILE, **arguments: str) -> None:
        """A stage of deploy/Dockerfile, or all of another, as an image of that name."""
        options = [f"--build-arg={name}={value}" for name, value in arguments.items()]
        if PIP_CONF.exists():
            options.append(f"--secret=id=pip.conf,src={PIP_CONF}")
        self._buildah(
            "bud",
            "--isolation=chroot",
            "--ulimit=nofile=20000:20000",
            f"--volume={CERTIFICATES}:{CERTIFICATES}:ro",
            "--build-arg=PYTHON_IMAGE=localhost/base",
            "--build-arg=NGINX_IMAGE=localhost/base",
            *options,
            *([f"--target={target}"] if dockerfile == DOCKERFILE else []),
            f"--tag=localhost/{target}",
            f"--file={dockerfile}",
            str(HOME),
        )

    def root(self, target: str) -> Path:
        """The image's files, mounted."""
        if target not in self._containers:
            self._containers[target] = self._buildah("from", f"localhost/{target}")
        return Path(self._buildah("mount", self._containers[target]))

    def configuration(self, target: str, template: str) -> str:
        """What the image says of itself, by a Go template."""
        return self._buildah("inspect", "--type=image", f"--format={template}", f"localhost/{target}")

    def _make_base(self) -> None:
        folder = self._store / "base"
        folder.mkdir()
        made = subprocess.run(
            ["mmdebstrap", "--quiet", "--variant=essential", f"--include={PACKAGES}", "bookworm", folder / "base.tar"],
            capture_output=True,
            text=True,
            timeout=BASE_SECONDS_MAX,
            check=False,
        )
        assert made.returncode == 0, made.stderr
        (folder / "Containerfile").write_text("FROM scratch\nADD base.tar /\n")
        self._buildah("bud", "--isolation=chroot", "--ulimit=nofile=20000:20000", "--tag=localhost/base", str(folder))
        shutil.rmtree(folder)

    def _buildah(self, *words: str) -> str:
        where = [f"--root={self._store / 'store'}", f"--runroot={self._store / 'run'}"]
        done = subprocess.run(
            ["buildah", *where, *words],
            capture_output=True,
            text=True,
            timeout=BUILD_SECONDS_MAX,
            check=False,
            env=os.environ | {"TMPDIR": str(self._store)},
        )
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        return done.stdout.strip()


# In a mount namespace of its own: the image's files read-only, and what a pod mounts into them.
ENTER = """
set -eu
root=$1; shift
mount --bind "$root" "$root"
for place in $PLACES; do
    mkdir -p "$root$place"
    mount --bind "$VOLUMES/$(echo "$place" | tr / _)" "$root$place"
done
mount --bind /dev "$root/dev"
mount -t proc proc "$root/proc"
mount -t tmpfs -o size=16k tmpfs "$root/tmp"
cat /dev/zero > "$root/tmp/full" 2> /dev/null || true
if echo more 2> /dev/null > "$root/tmp/more"; then echo "/tmp is not full" >&2; exit 1; fi
mount -t tmpfs -o size=1m,mode=1777 tmpfs "$root/dev/shm"
mount -o remount,bind,ro "$root"
unset PLACES VOLUMES
exec chroot --userspec="$USERSPEC" "$root" /usr/bin/env -u USERSPEC sh -c 'cd "$0" && exec "$@"' "$WORKDIR" "$@"
"""


def run_in(
    root: Path,
    command: Sequence[str],
    volumes: Path,
    places: Sequence[str],
    environment: Mapping[str, str],
    *,
    workdir: str = "/",
    user: int = UID,
    log: Path,
) -> "subprocess.Popen[bytes]":
    """A process in an image. Only `places`, which are in `volumes`, can be written; /tmp is full."""
    for place in places:
        folder = volumes / place.replace("/", "_")
        folder.mkdir(parents=True, exist_ok=True)
        os.chown(folder, UID, UID)
    environment = {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "PLACES": " ".join(places),
        "VOLUMES": str(volumes),
        "USERSPEC": f"{user}:{user}",
        "WORKDIR": workdir,
        **environment,
    }
    with log.open("ab") as output:
        # NGINX opens it anew, as the user that it is; a runtime gives a container's output to that user.
        log.chmod(0o666)
        return subprocess.Popen(
            ["unshare", "--mount", "sh", "-c", ENTER, "enter", str(root), *command],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            preexec_fn=die_with_parent(),  # noqa: PLW1509 - two system calls, no lock
        )
