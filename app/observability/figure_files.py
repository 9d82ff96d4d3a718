"""Figures on their way to the exporter: prometheus_client's files for several processes, written in bulk.

A full folder costs figures and no worker: room is allocated before it is written to, since a page that cannot be had is
a SIGBUS.
"""

import json
import os
from collections.abc import Sequence
from math import inf
from pathlib import Path
from typing import Any

import structlog
from prometheus_client import values
from prometheus_client.mmap_dict import MmapedDict, mmap_key
from prometheus_client.utils import floatToGoString

from app.observability.figures import Figures, Key, declared
from app.observability.metrics import Declared
from app.observability.places import Place

log = structlog.get_logger(__name__)

# What a file has at first; doubled when it is full, as prometheus_client does.
FILE_BYTES = 64 * 1024
# Beside its key, an entry has a length and two doubles, and up to 8 bytes that fill it up: `MmapedDict`.
ENTRY_BYTES = 4 + 16 + 8


class FigureFiles:
    """Made by the process that holds the place, once.

    Args:
        place: its files are gone on in; gauges begin anew.
    """

    def __init__(self, place: Place) -> None:
        self.place = place
        place.set_full(False)
        for file in place.folder.glob(f"*_{place.number}.db"):
            # The one who had the place before is dead, and what it showed with it; what it counted stays.
            if file.name.startswith("gauge") or not is_sound(file):
                file.unlink()
        # The folder by its variable, since prometheus_client reads it nowhere else.
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(place.folder)
        self._value_class: Any = values.MultiProcessValue(lambda: place.number)  # type: ignore[no-untyped-call]
        self._used: dict[str, int] = {}
        self._values: dict[Key, list[Any]] = {}
        self._written: dict[Key, list[float]] = {}
        self._full = False

    def write(self, figures: Figures) -> None:
        """Bring the files up to date."""
        for key, count in figures.counts.items():
            self._raise(key, [count])
        for key, tally in figures.tallies.items():
            self._raise(key, [tally.total, *tally.counts])
        for key, value in figures.gauges.items():
            for written in self._values_of(key):
                written.set(value)

    def _raise(self, key: Key, now: list[float]) -> None:
        before = self._written.get(key)
        if now == before:
            return
        for value, new, old in zip(self._values_of(key), now, before or [0.0] * len(now), strict=False):
            if new != old:
                value.inc(new - old)
        self._written[key] = now

    def _values_of(self, key: Key) -> list[Any]:
        found = self._values.get(key)
        if found is None:
            found = self._values[key] = self._entries(declared(key), key[1:])
        return found

    def _entries(self, metric: Declared, labels: Sequence[str]) -> list[Any]:
        """The places in the files that a metric with these labels has; none where there is no room."""
        made = []
        for name, label_names, label_values in _names(metric, labels):
            # The exporter writes a counter's ending itself.
            family = metric.name.removesuffix("_total") if metric.kind == "counter" else metric.name
            mode = metric.merge if metric.kind == "gauge" else ""
            kind = f"gauge_{mode}" if mode else metric.kind
            if not self._room(kind, len(mmap_key(family, name, label_names, label_values, metric.help).encode())):
                return []
            entry = (metric.kind, family, name, label_names, label_values, metric.help)
            made.append(self._value_class(*entry, multiprocess_mode=mode))
        return made

    def _room(self, kind: str, key_bytes: int) -> bool:
        path = self.place.file(kind)
        used = self._used.get(kind)
        if used is None:
            used = max(8, _used_bytes(path))
        used += key_bytes + ENTRY_BYTES
        size = path.stat().st_size if path.exists() else 0
        if used > size and not self._allocate(path, used, size or FILE_BYTES // 2):
            return False
        self._used[kind] = used
        return True

    def _allocate(self, path: Path, used: int, size: int) -> bool:
        while used > size:
            size *= 2
        size = max(size, FILE_BYTES)
        # A new one is whole before it has its name: a scrape that met an empty one would fail, or call it damaged.
        begun = path if path.exists() else path.with_suffix(".new")
        try:
            with begun.open("ab") as file:
                os.posix_fallocate(file.fileno(), 0, size)
            begun.rename(path)
        except OSError as error:
            if not self._full:
                self._full = True
                self.place.set_full(True)
                log.error("no room for metrics, some are missing", folder=str(path.parent), reason=error.strerror)
            return False
        return True


def is_sound(file: Path) -> bool:
    """Whether a file can be read to its end. A process that was killed, or a full disk, leaves others."""
    try:
        if not 8 <= (_used_bytes(file) or 8) <= file.stat().st_size:
            return False
        for key, *_ in MmapedDict.read_all_values_from_file(str(file)):  # type: ignore[no-untyped-call]
            json.loads(key)
    except Exception:  # whatever random bytes make a parser say
        return False
    return True


def _used_bytes(file: Path) -> int:
    """How much of it there is, by its own account, which is in its first bytes."""
    try:
        with file.open("rb") as opened:
            return int.from_bytes(opened.read(4), "little", signed=True)
    except FileNotFoundError:
        return 0


def _names(metric: Declared, labels: Sequence[str]) -> list[tuple[str, list[str], list[str]]]:
    """The series of a metric, in the order in which `FigureFiles._raise` has their values."""
    if metric.kind != "histogram":
        return [(metric.name, list(metric.labels), list(labels))]
    bounds = [floatToGoString(bound) for bound in (*metric.buckets.bounds, inf)]  # type: ignore[no-untyped-call]
    buckets = [(f"{metric.name}_bucket", [*metric.labels, "le"], [*labels, bound]) for bound in bounds]
    return [(f"{metric.name}_sum", list(metric.labels), list(labels)), *buckets]
