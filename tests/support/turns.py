"""How often a test may be tried on a server that keeps what the tries before it did: see the fixture `turn`."""

# The first time and as often again (`--reruns` in pyproject.toml).
TURNS_MAX = 3
