"""How much slower this machine is just now than the one that the tests' crowds and hurry were made for.

A crowd that a slow machine cannot carry shows what an overload does, and not what a test asks; so crowds are smaller
there, and fewer seconds are saved.
"""

from statistics import median
from time import perf_counter

LOOPS, LOOKS = 1_000_000, 5
# What so many take on two cores that three test processes share.
USUAL_SECONDS = 0.04
SLOWNESS_MAX = 6.0


def slowness() -> float:
    """From 1, also where it is faster, to `SLOWNESS_MAX`. Takes a fifth of a second, or as often as it is slower."""
    return min(max(1.0, median(_look() for _ in range(LOOKS)) / USUAL_SECONDS), SLOWNESS_MAX)


def carried(crowd: int, slower: float) -> int:
    """How many of a crowd a machine that is so much slower carries; at least one."""
    return max(1, round(crowd / slower))


def _look() -> float:
    began = perf_counter()
    for _ in range(LOOPS):
        pass
    return perf_counter() - began
