"""A burst of five times the load."""

from loadtests.shapes.base import Curve
from loadtests.shapes.curves import spike


class Spike(Curve):
    """See `curves.spike`."""

    curve = staticmethod(spike)
