"""A straight line up."""

from loadtests.shapes.base import Curve
from loadtests.shapes.curves import ramp


class Ramp(Curve):
    """See `curves.ramp`."""

    curve = staticmethod(ramp)
