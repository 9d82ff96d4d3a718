"""What a stream was given of its caller's account; kept with the stream, since whoever ends it gives back the rest."""

import msgspec


class Grant(msgspec.Struct, frozen=True):
    """See `app.limits`, which makes it.

    Args:
        account: whose.
        slot: what runs while the stream does; empty without one.
        tokens: taken of the account, for reading and writing; 0 where tokens are not counted.
        window: in which they were taken.
        output_tokens_max: at which the stream is ended; 0 for never.
        alone: only the process that took it knows of it.
    """

    account: str
    slot: str = ""
    tokens: int = 0
    window: int = 0
    output_tokens_max: int = 0
    alone: bool = False
