"""Where a curve of throughput bends: the point farthest above the line from its beginning to its end (Kneedle)."""

from collections.abc import Sequence

import numpy as np

# A bend that is closer to the straight line than this is noise: 2 % of the height.
DISTANCE_MIN = 0.02
POINTS_MIN = 4


def knee(streams: Sequence[float], throughput: Sequence[float]) -> float | None:
    """The load of the bend; None for a line without one, or too few points to tell."""
    loads = np.unique(np.asarray(streams, dtype=np.float64))
    if len(loads) < POINTS_MIN:
        return None
    rates = np.array([np.mean([x for n, x in zip(streams, throughput, strict=True) if n == load]) for load in loads])
    height, width = rates.max() - rates[0], loads[-1] - loads[0]
    if height <= 0:
        return None
    distance = (rates - rates[0]) / height - (loads - loads[0]) / width
    best = int(np.argmax(distance))
    return float(loads[best]) if distance[best] > DISTANCE_MIN else None
