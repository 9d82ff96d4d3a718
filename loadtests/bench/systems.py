"""All that `make bench` can measure, by short names; and the origin behind it."""

import contextlib
from collections.abc import Iterator

from loadtests.bench.ours import (
    everything,
    everything_on_redis,
    sluice,
    sluice_behind_nginx,
    sluice_counting,
    sluice_full,
    sluice_on_redis,
    sluice_traced,
    sluice_unseen,
)
from loadtests.bench.ports import free_ports, wait_until_answers
from loadtests.bench.processes import started
from loadtests.bench.system import Site, Start, System
from loadtests.bench.yardstick import yardstick

NOTHING_THERE = 404  # what the origin says to a GET


@contextlib.contextmanager
def origin(site: Site, tokens: int, rate: float) -> Iterator[int]:
    """The upstream, on the generator's core; its port."""
    (port,) = free_ports(1)
    log = site.state / "origin.log"
    command = [str(site.programs / "origin"), "--port", str(port), "--tokens", str(tokens), "--rate", str(rate)]
    with started(command, site.cores.generator, log) as process:
        wait_until_answers(port, "/", NOTHING_THERE, process, log)
        yield port


@contextlib.contextmanager
def no_gateway(_: Site, origin_port: int) -> Iterator[System]:
    """The origin itself: what a client would see if the gateway cost nothing."""
    yield System(origin_port)


SYSTEMS: dict[str, tuple[str, Start]] = {
    "origin": ("origin, no gateway", no_gateway),
    "yardstick": ("NGINX alone", yardstick),
    "sluice": ("Sluice", sluice),
    # Next to it: a machine changes within minutes, and the difference of the two is judged.
    "unseen": ("Sluice, no figures or lines", sluice_unseen),
    "nginx": ("Sluice behind NGINX", sluice_behind_nginx),
    "redis": ("Sluice, log in Redis", sluice_on_redis),
    "counting": ("Sluice, with keys and limits", sluice_counting),
    "traced": ("Sluice, traced", sluice_traced),
    "full": ("Sluice, traced, with keys and limits", sluice_full),
    "everything": ("Sluice behind NGINX, everything on", everything),
    "everything-redis": ("Sluice behind NGINX, everything on, log in Redis", everything_on_redis),
}
# Those that are only measured where they are asked for.
ASKED_FOR = ("redis", "counting", "traced", "full", "everything", "everything-redis")
