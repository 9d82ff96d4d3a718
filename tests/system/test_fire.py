"""Streams under fire: workers are killed, stopped, told to go and aborted at random, and every client has its text."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.chain import Chain
from tests.support.fire import ENV, Fire
from tests.support.footprint import inside_env
from tests.support.machine import slowness
from tests.support.redis import RedisServer

WORKERS = 3
FIRE_SECONDS = 15
# What happened in a run is decided by this and by the machine's pace: print it, and a red run can be tried again.
SEED = int(os.environ.get("FIRE_SEED", "1"))


@pytest.fixture(params=["lmdb", "redis"])
def stream_log(request: pytest.FixtureRequest) -> Iterator[dict[str, str]]:
    """The setting for the log."""
    if request.param == "lmdb":
        yield {}
        return
    with RedisServer() as server:
        yield {"SLUICE_STREAM_LOG": server.url}


@pytest.mark.slow
@pytest.mark.timeout(400)  # on the slowest machine: 90 s of fire, 60 of the last clients, and 75 to settle
async def test_nobody_loses_or_repeats_a_token_while_workers_burn(stream_log: dict[str, str], tmp_path: Path) -> None:
    with Chain(ENV | inside_env(tmp_path) | stream_log, workers=WORKERS) as chain:
        slower = slowness()
        fire = Fire(chain, tmp_path, SEED, slower)
        # As many deeds.
        await fire.burn(FIRE_SECONDS * slower)
        await fire.check()
        # The fire was one: clients were cut, moved and turned away, and streams were taken over.
        assert "took a stream over" in chain.log
        assert sum(journal.connections for journal in fire.journals) > len(fire.journals) + fire.streams / 2
