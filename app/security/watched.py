"""A file that is read again when it changes: keys are rotated without a restart."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

import structlog

log = structlog.get_logger(__name__)

T = TypeVar("T")

# A key that was withdrawn is of use for as long as this.
LOOK_SECONDS = 2.0
BYTES_MAX = 16 * 1024 * 1024


class CredentialsError(ValueError):
    """A file of credentials cannot be used; the message is one line that names setting and file, and no secret."""


class Watched(Generic[T]):
    """`value` is what the file says; `run` keeps it so.

    Args:
        setting: the variable that names the file, for messages.
        parse: raises `ValueError` where the text is not what it should be.

    Raises:
        CredentialsError: it cannot be read the first time.
    """

    def __init__(self, setting: str, path: Path, parse: Callable[[str], T]) -> None:
        self._setting = setting
        self._path = path
        self._parse = parse
        self._seen: tuple[int, ...] = ()
        self._refused = ""
        self.changes = 0
        """How often it was read again."""
        self.value = self._read()

    async def run(self) -> None:
        """Look again and again."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            await self.look()

    async def look(self) -> None:
        """Read the file if it has changed. One that is broken or gone changes nothing: half of a file must lock nobody
        out."""
        try:
            # On a thread: the file may be on a network's file system.
            if await asyncio.to_thread(self._stamp) == self._seen:
                return
            self.value = await asyncio.to_thread(self._read)
        except (CredentialsError, OSError) as error:
            if str(error) != self._refused:
                log.error("credentials are not read again", reason=str(error))
            self._refused = str(error)
            return
        self.changes += 1
        self._refused = ""
        log.info("credentials read again", path=str(self._path))

    def _read(self) -> T:
        try:
            seen = self._stamp()
            with self._path.open("rb") as file:
                content = file.read(BYTES_MAX + 1)
            if len(content) > BYTES_MAX:
                raise ValueError(f"larger than {BYTES_MAX} bytes")
            value = self._parse(content.decode())
        except OSError as error:
            raise CredentialsError(f"{self._setting}: {self._path}: {error.strerror}") from None
        except ValueError as error:
            raise CredentialsError(f"{self._setting}: {self._path}: {error}") from None
        self._seen = seen
        return value

    def _stamp(self) -> tuple[int, ...]:
        stat = self._path.stat()
        return stat.st_dev, stat.st_ino, stat.st_mtime_ns, stat.st_size
