"""How full a store may be for what. Streams that run must be able to end, so newcomers are refused first."""

# The rest is for what runs already: a stream of 20 tokens/s, 50 bytes each, takes 60 KB a minute.
CREATE_SHARE_MAX = 0.85
# The rest is for terminal events, and for the pages that deleting itself needs in a store that copies on write.
TOKENS_SHARE_MAX = 0.92
