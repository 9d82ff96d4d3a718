"""What a caller of each tier may use: requests, tokens, concurrent streams."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Count = Annotated[int, Field(ge=1, le=1_000_000_000)]
# What a key or a token that names no tier gets; the models file may say another.
LEAST_TIER = "free"


class Tier(BaseModel):
    """Bounds for each principal of the tier; what is left out is not bounded."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    requests_per_minute: Count | None = Field(None, description="Of one caller; unset: as many as come.")
    requests_per_hour: Count | None = Field(None, description="The same of an hour.")
    tokens_per_minute: Count | None = Field(None, description="Of requests and answers together.")
    concurrent_streams: Count | None = Field(None, description="Of one caller at a time.")
    max_tokens: Count | None = Field(None, description="Most of one answer.")
    priority: int = Field(0, ge=0, le=9, description="Who has more is let in first where callers wait.")

    @property
    def rates(self) -> str:
        """The bounds on requests, as `limits` reads them; empty without any."""
        rates = [(self.requests_per_minute, "minute"), (self.requests_per_hour, "hour")]
        return ";".join(f"{most}/{unit}" for most, unit in rates if most is not None)


UNBOUNDED = Tier()
# Examples to start from. Their numbers are for an upstream that answers some 50 streams at a time.
EXAMPLES = {
    "free": Tier(
        requests_per_minute=20, requests_per_hour=200, tokens_per_minute=40_000, concurrent_streams=4, max_tokens=4_096
    ),
    "pro": Tier(
        requests_per_minute=300,
        requests_per_hour=10_000,
        tokens_per_minute=1_000_000,
        concurrent_streams=50,
        max_tokens=16_384,
        priority=5,
    ),
    "enterprise": Tier(
        requests_per_minute=6_000,
        requests_per_hour=200_000,
        tokens_per_minute=20_000_000,
        concurrent_streams=1_000,
        priority=9,
    ),
}
