"""The caller that is known and counted: a key, and a tier that has every limit and reaches none."""

from hashlib import sha256
from pathlib import Path

import yaml

KEY = "sk-sluice-" + "k" * 43
HEADER = f"Authorization: Bearer {KEY}"
TIER = "free"
TIERS = {
    TIER: {
        "requests_per_minute": 10**9,
        "requests_per_hour": 10**9,
        "tokens_per_minute": 10**9,
        "concurrent_streams": 10**6,
    }
}


def write_keys(file: Path) -> None:
    """A file of API keys with `KEY` in it."""
    entry = {"hash": sha256(KEY.encode()).hexdigest(), "principal": "acme", "tier": TIER}
    file.write_text(yaml.safe_dump({"keys": [entry]}))
