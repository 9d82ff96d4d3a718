"""A file of API keys for a test's server, and the headers that show them."""

from hashlib import sha256
from pathlib import Path

import yaml


class ApiKeys:
    """Principals by their tiers, each with one key.

    Args:
        folder: the test's own; the file, and everything else that the server keeps for it, is there.
    """

    def __init__(self, folder: Path, **tiers: str) -> None:
        self.path = folder / "keys.yaml"
        self._folder = folder
        self._entries: list[dict[str, str]] = []
        for principal, tier in tiers.items():
            self._append(key_of(principal), principal, tier)
        if tiers:
            self._write()

    def add(self, key: str, principal: str, tier: str = "pro", **fields: str) -> None:
        """One key more."""
        self._append(key, principal, tier, **fields)
        self._write()

    def _append(self, key: str, principal: str, tier: str, **fields: str) -> None:
        digest = sha256(key.encode()).hexdigest()
        self._entries.append({"hash": f"sha256:{digest}", "principal": principal, "tier": tier} | fields)

    def remove(self, key: str) -> None:
        """Withdraw a key."""
        digest = f"sha256:{sha256(key.encode()).hexdigest()}"
        self._entries = [entry for entry in self._entries if entry["hash"] != digest]
        self._write()

    @property
    def environment(self) -> dict[str, str]:
        """What tells a server of the file."""
        return {"SLUICE_API_KEYS_FILE": str(self.path), "SLUICE_TOKEN_KEY_FILE": str(self._folder / "token.keys")}

    def headers(self, principal: str) -> dict[str, str]:
        """What shows a principal's key."""
        return {"Authorization": f"Bearer {key_of(principal)}"}

    def _write(self) -> None:
        # As secrets are mounted: nobody ever sees half a file.
        temporary = self.path.with_suffix(".new")
        temporary.write_text(yaml.safe_dump({"keys": self._entries}))
        temporary.rename(self.path)


def key_of(principal: str) -> str:
    """The key that `ApiKeys` made for a principal."""
    return f"sk-sluice-{principal}-0123456789abcdefghijklmnopqrstuvwxyz"
