"""From streams that one worker carries to the numbers that bound and scale a deployment."""

import math

# A pod's cores. Two workers survive the death of one; a third would lengthen every drain.
WORKERS_PER_POD = 2
# How fast the load may grow while a pod starts: a third more each minute, doubling in about two and a half.
GROWTH_PER_MINUTE = 0.33
# Until a new pod takes load: scrape 15 s, rule 15 s, the autoscaler's turn 15 s, and image, start and probe 30 s.
READY_SECONDS = 75.0
# What NGINX lets through beyond what is admitted: half as many that wait for a place (app/main.py), readers that come
# back, and those whose answer is admission's 503 with its Retry-After, which is better than NGINX's.
NGINX_FACTOR = 2.0


def utilisation_target(growth_per_minute: float = GROWTH_PER_MINUTE, ready_seconds: float = READY_SECONDS) -> float:
    """The share of capacity at which a pod must be added, for it to be there when the rest is used up."""
    return 1 / (1 + growth_per_minute / 60 * ready_seconds)


def hpa_target(streams_per_pod: int, utilisation: float) -> int:
    """Average streams of the pods above which one is added."""
    return max(1, math.floor(streams_per_pod * utilisation))


def nginx_streams_max(streams_per_pod: int) -> int:
    """Open streams that a pod's NGINX lets through."""
    return math.ceil(streams_per_pod * NGINX_FACTOR)
