"""What a stream was given of its caller's account; kept with the stream, since whoever ends it gives back the rest."""

import msgspec


class Grant(msgspec.Struct, frozen=True):
    """See `app.limits`, which makes it.

    Args:
        account: whose.
        slot: what runs while the stream does; empty without one.
        tokens: taken of the account, for reading and writing; 0 where tokens are not counted.
        window: in which they were taken last.
        output_tokens_max: at which the stream is ended, unless more is taken; 0 for never.
        alone: only the process that took it knows of it.
        more_tokens: how many more may be taken for writing, once those are used.
        minute_tokens_max: what the account has in a minute.
    """

    account: str
    slot: str = ""
    tokens: int = 0
    window: int = 0
    output_tokens_max: int = 0
    alone: bool = False
    more_tokens: int = 0
    minute_tokens_max: int = 0
