"""Arrivals that do not wait for the server: `--arrivals` streams a second begin, while there are free users (-u).

The moments are drawn by `loadtests.arrivals`, in each process its share. The shape only has all users there from the
start: they are places, of which as many as streams that run at once are taken. Where none is free, streams begin late;
that is part of their latency, and the run is not valid.
"""

from loadtests.shapes.base import Curve
from loadtests.shapes.curves import soak


class Poisson(Curve):
    """See above."""

    curve = staticmethod(soak)
