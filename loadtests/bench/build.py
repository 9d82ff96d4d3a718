"""Builds the two C programs, so that anyone with gcc can measure."""

import subprocess
from pathlib import Path

from loadtests.bench.errors import BenchError

FOLDER = Path(__file__).parent
BUILD_SECONDS_MAX = 60
SOURCES = {
    "origin": ("origin.c", "wheel.c", "sockets.c"),
    "load": ("load.c", "arrivals.c", "histogram.c", "records.c", "response.c", "sse.c", "sockets.c"),
}


def build(folder: Path = FOLDER / "build") -> Path:
    """The folder with `origin` and `load`, built where a source is newer.

    Raises:
        BenchError: there is no gcc, or it did not succeed.
    """
    folder.mkdir(exist_ok=True)
    for program, sources in SOURCES.items():
        if _is_stale(folder / program):
            _compile(folder / program, sources)
    return folder


def _is_stale(program: Path) -> bool:
    built = program.stat().st_mtime if program.exists() else 0.0
    return any(source.stat().st_mtime >= built for source in FOLDER.glob("*.[ch]"))


def _compile(program: Path, sources: tuple[str, ...]) -> None:
    paths = [str(FOLDER / source) for source in sources]
    command = ["gcc", "-O2", "-std=gnu11", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-o", str(program), *paths, "-lm"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=BUILD_SECONDS_MAX, check=False)
    except FileNotFoundError:
        raise BenchError("gcc is not installed (Debian: apt-get install gcc libc6-dev)") from None
    if done.returncode != 0:
        raise BenchError(f"gcc failed for {program.name}: {done.stderr.strip()}")
