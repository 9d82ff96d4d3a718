"""What requests leave for the cyclic collector of a `Gunicorn` that is poked with `LOOK`."""

import json
import time
from collections.abc import Callable

from tests.support.gunicorn import Gunicorn
from tests.support.workers import active_streams, until

REQUESTS = 5
# Turned off as often as it is asked for; what it would have had to find is written down.
LOOK = """
import collections, gc, json
gc.collect()
found = collections.Counter(f'{type(each).__module__}.{type(each).__qualname__}' for each in gc.garbage)
gc.garbage.clear()
gc.disable()
gc.set_debug(gc.DEBUG_SAVEALL)
print('\\n<GARBAGE>' + json.dumps(found), flush=True)
"""


def left_by(server: Gunicorn, request: Callable[[], None]) -> dict[str, int]:
    """What several such requests leave for the collector, by type; the first, which makes what is made once, apart."""
    request()
    look(server)
    for _ in range(REQUESTS):
        request()
    return look(server)


def look(server: Gunicorn) -> dict[str, int]:
    until(lambda: active_streams(server.url) == 0, 10, "the streams have ended")
    time.sleep(0.2)  # the connections too
    looks = server.log.count("<GARBAGE>")
    server.poke()
    until(lambda: server.log.count("<GARBAGE>") > looks, 10, "the collector has looked")
    said = server.log.rpartition("<GARBAGE>")[2].partition("\n")[0]
    found: dict[str, int] = json.loads(said)
    return found
