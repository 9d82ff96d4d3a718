"""Who may issue bearer tokens that are accepted here, as the models file says it."""

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, HttpUrl, model_validator

from app.tiers import LEAST_TIER

Algorithm = Literal["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"]
SecretAlgorithm = Literal["HS256", "HS384", "HS512"]


class Issuer(BaseModel):
    """One issuer, and where its keys are: a key set in a file or at an address, or a secret that both sides know.

    Args:
        name: short; its principals are `<name>:<sub>`.
        issuer, audience: what `iss` and `aud` have to be.
        algorithms: those that its keys may be used with.
        tier_claim: the claim that names the tier; `tier` where it names none that there is.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]{0,31}$")
    issuer: str = Field(min_length=1, max_length=500)
    audience: str = Field(min_length=1, max_length=500)
    algorithms: tuple[Algorithm | SecretAlgorithm, ...] = Field(default=("RS256",), min_length=1)
    jwks_url: HttpUrl | None = None
    jwks_file: Path | None = None
    secret_file: Path | None = None
    tier_claim: str | None = None
    tier: str = LEAST_TIER
    leeway_seconds: float = Field(30, ge=0, le=300)

    @model_validator(mode="after")
    def _keys_fit(self) -> "Issuer":
        if self.name in {"key", "user", "addr", "anonymous"} or self.issuer == "sluice":
            raise ValueError(f"{self.name}, {self.issuer}: taken by Sluice itself")
        if sum(source is not None for source in (self.jwks_url, self.jwks_file, self.secret_file)) != 1:
            raise ValueError("needs exactly one of jwks_url, jwks_file and secret_file")
        secret = [algorithm.startswith("HS") for algorithm in self.algorithms]
        if not (all(secret) if self.secret_file is not None else not any(secret)):
            # A public key that is taken for a secret is one that everybody knows.
            raise ValueError("secret_file goes with HS256, HS384 or HS512 alone, key sets with the others alone")
        return self

    @model_validator(mode="after")
    def _address_is_safe(self) -> "Issuer":
        url = self.jwks_url
        if url is not None and url.scheme != "https" and url.host not in {"127.0.0.1", "localhost", "[::1]"}:
            raise ValueError("jwks_url must be https: whoever changes it on the way decides who comes in")
        return self
