"""Writes deploy/SETTINGS.md's tables: every setting, every wait of the ledger, and what must hold between waits.

`python -m scripts.settings_reference`; with `--check`, only says whether the tables are up to date.
"""

import sys
from pathlib import Path
from types import NoneType
from typing import Any, Literal, get_args, get_origin

import yaml
from pydantic import AliasChoices
from pydantic.fields import FieldInfo

from app.settings import Settings
from app.timeouts import INEQUALITIES, LEDGER, ledger
from scripts.regions import main, table

DOCUMENT = "deploy/SETTINGS.md"
# What a default comes to is not always a constant.
DEFAULTS = {
    "workers": "one for each core",
    "stream_log": "`lmdb://` in the state folder",
    "streams_max": "`admission_streams_per_worker` of capacity.json",
}
TYPES = {bool: "yes or no", int: "integer", float: "seconds", str: "text", Path: "path"}
BOUNDS = {"ge": "from {}", "gt": "above {}", "le": "to {}", "lt": "below {}"}


def variable(name: str) -> str:
    """The environment variable that sets it."""
    alias = Settings.model_fields[name].validation_alias
    return str(alias.choices[0]) if isinstance(alias, AliasChoices) else f"SLUICE_{name.upper()}"


def settings_table() -> str:
    rows = [
        [f"`{variable(name)}`", _type(field), _default(name, field), _range(field), str(field.description)]
        for name, field in Settings.model_fields.items()
    ]
    return table(["variable", "type", "default", "range", "what it does"], rows)


def waits_table() -> str:
    """The ledger's own words; a wait without a variable is changed in the ledger."""
    entries: dict[str, dict[str, Any]] = yaml.safe_load(LEDGER.read_text(encoding="utf-8"))
    rows = [
        [f"`{name}`", f"{entry['seconds']:g}", _variable_of_wait(name), entry["meaning"], entry["reason"]]
        for name, entry in entries.items()
    ]
    return table(["wait", "seconds", "variable", "meaning", "why this long"], rows)


def inequalities_table() -> str:
    rows = [[f"`{shorter}` < `{longer}`", consequence] for (shorter, _), (longer, _), consequence in INEQUALITIES]
    return table(["must hold", "else"], rows)


def _variable_of_wait(name: str) -> str:
    return f"`{variable(name)}`" if name in Settings.model_fields else ""


def _words(field: FieldInfo) -> list[str]:
    """Those that a setting takes which takes nothing else."""
    kinds = [field.annotation, *get_args(field.annotation)]
    return [word for kind in kinds if get_origin(kind) is Literal for word in get_args(kind)]


def _type(field: FieldInfo) -> str:
    if _words(field):
        return "word"
    kinds = [kind for kind in get_args(field.annotation) or (field.annotation,) if kind is not NoneType]
    return TYPES[kinds[0]]


def _default(name: str, field: FieldInfo) -> str:
    if name in DEFAULTS:
        return DEFAULTS[name]
    if name in ledger():
        return f"{ledger()[name]:g}"
    if field.default is None:
        return "none"
    return f"{field.default:,}" if isinstance(field.default, int) and field.default > 9999 else f"`{field.default}`"


def _range(field: FieldInfo) -> str:
    if words := _words(field):
        return ", ".join(f"`{word}`" for word in words)
    found = [
        words.format(f"{getattr(bound, name):,}")
        for bound in field.metadata
        for name, words in BOUNDS.items()
        if hasattr(bound, name)
    ]
    return ", ".join(found) or "any"


def regions() -> dict[str, str]:
    return {"settings": settings_table(), "waits": waits_table(), "inequalities": inequalities_table()}


if __name__ == "__main__":
    sys.exit(main(DOCUMENT, regions()))
