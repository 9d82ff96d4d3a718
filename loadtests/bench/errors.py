"""Why a measurement could not be made."""


class BenchError(Exception):
    """Nothing was measured; the message is one line for the person who asked."""
