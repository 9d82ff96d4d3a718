"""The same load for long."""

from loadtests.shapes.base import Curve
from loadtests.shapes.curves import soak


class Soak(Curve):
    """See `curves.soak`."""

    curve = staticmethod(soak)
