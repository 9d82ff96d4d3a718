"""Bodies and answers of the routes that say who asks, and that give tokens and tickets."""

from typing import Annotated, Literal

from pydantic import BaseModel, Field

from app.tiers import Tier


class TokenAnswer(BaseModel):
    """A token."""

    access_token: str = Field(examples=["eyJhbGciOi…"], description="For `Authorization: Bearer`.")
    token_type: Literal["Bearer"] = Field("Bearer", description="How it is shown.")
    expires_in: int = Field(description="Seconds.", examples=[900])


class TokenRefusal(BaseModel):
    """Why there is no token, in OAuth's words."""

    error: str = Field(examples=["invalid_client"], description="OAuth's code (RFC 6749, section 5.2).")
    error_description: str = Field(description="What is wrong, for people.")


class IdentityAnswer(BaseModel):
    """Who asks."""

    authenticated: bool = Field(description="Whether the request showed who it is from.")
    required: bool = Field(description="Whether requests without credentials are refused.")
    principal: str | None = Field(examples=["key:acme"], description="Whose streams it may read.")
    tier: str | None = Field(examples=["pro"], description="By which its limits are.")
    expires_at: int | None = Field(description="When what was shown is no longer valid, Unix time; null for never.")
    limits: Tier | None = Field(description="What the tier may use; null for whatever it likes.")


class TicketBody(BaseModel):
    """What a ticket is to open."""

    scope: Annotated[str, Field(max_length=120, examples=["create"])] = Field(
        description="`create` one stream, read `stream:<id>`, or join `conversation:<id>`.",
        pattern=r"^(create|stream:[0-9A-Za-z_-]{22,40}|conversation:[A-Za-z0-9._-]{1,64})$",
    )


class TicketAnswer(BaseModel):
    """A ticket, to be put into an address as `?ticket=`."""

    ticket: str = Field(description="For the query parameter `ticket`.")
    expires_in_seconds: int = Field(description="To open something with it.", examples=[60])
