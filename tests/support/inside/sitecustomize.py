"""Python runs this at the start of every process that has this folder on its PYTHONPATH: a way into the product's own.

It does nothing but in Gunicorn's processes, and there only what the environment asks for:
- `SLUICE_TEST_INSIDE`: a folder. Each worker answers on a socket in it with what only a process knows of itself.
- `SLUICE_TEST_SABOTAGE`: `module:function`, called before the product is loaded, to take something away from it.
"""

import functools
import os
import sys

if any("gunicorn" in word for word in sys.orig_argv) and "SLUICE_TEST_HOME" in os.environ:
    sys.path.append(os.environ["SLUICE_TEST_HOME"])
    from tests.support.inside import probe

    if folder := os.environ.get("SLUICE_TEST_INSIDE"):
        os.register_at_fork(after_in_child=functools.partial(probe.serve, folder))
    if name := os.environ.get("SLUICE_TEST_SABOTAGE"):
        probe.call(name)
