"""What a stream must keep for its load to count as carried, by kind of traffic: reads `loadtests/profiles.yaml`."""

from pathlib import Path

import msgspec

PROFILES = Path(__file__).resolve().parents[1] / "profiles.yaml"
# Of the tests: its bounds are laxer than what users are promised, so its number bounds nothing.
SMOKE = "smoke"


class UnknownProfile(ValueError):
    """No profile of that name; the message lists those that there are."""


class Objectives(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The traffic, and the shares of streams that must keep each bound."""

    tokens_per_second: float
    tokens_per_stream: int
    ttft_ms_max: float
    ttft_share: float
    gap_ms_max: float
    gap_share: float
    complete_share: float

    @property
    def shares(self) -> dict[str, float]:
        """The share that is due, by objective."""
        return {"ttft": self.ttft_share, "gap": self.gap_share, "complete": self.complete_share}

    @property
    def stream_seconds(self) -> float:
        """How long a stream lives when nothing holds it up."""
        return self.tokens_per_stream / self.tokens_per_second


def objectives(profile: str) -> Objectives:
    """The objectives of one profile.

    Raises:
        UnknownProfile: there is none of that name.
    """
    profiles = msgspec.yaml.decode(PROFILES.read_bytes(), type=dict[str, Objectives])
    if profile not in profiles:
        raise UnknownProfile(f"no profile {profile!r}: there are {', '.join(profiles)}")
    return profiles[profile]
