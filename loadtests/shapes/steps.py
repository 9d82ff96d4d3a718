"""Five steps up."""

from loadtests.shapes.base import Curve
from loadtests.shapes.curves import steps


class Steps(Curve):
    """See `curves.steps`."""

    curve = staticmethod(steps)
