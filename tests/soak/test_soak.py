"""The long variants: a minute of fire on each log, reload after reload, rollout after rollout, cut after cut."""

import random
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.soak.results import fire_row, row
from tests.support.arson import Arsonist
from tests.support.chain import Chain
from tests.support.fire import ENV, Fire
from tests.support.footprint import inside_env
from tests.support.log_lines import wrong_lines
from tests.support.redis import RedisServer
from tests.support.rollout import SDK_CLIENTS, Rollout

pytestmark = [pytest.mark.soak, pytest.mark.timeout(600)]

WORKERS = 3
FIRE_SECONDS = 60
RELOADS = 10
RELOAD_SECONDS = 8
ROLLOUTS = 4
CUT_SECONDS = 90
SEED = random.randrange(10_000)


@pytest.fixture(params=["lmdb", "redis"])
def kind(request: pytest.FixtureRequest) -> str:
    """Which log."""
    return str(request.param)


@pytest.fixture
def chain(kind: str, tmp_path: Path) -> Iterator[Chain]:
    with ExitStack() as stack:
        log = {"SLUICE_STREAM_LOG": stack.enter_context(RedisServer()).url} if kind == "redis" else {}
        yield stack.enter_context(Chain(ENV | inside_env(tmp_path) | log, workers=WORKERS))


async def test_a_minute_of_fire(chain: Chain, kind: str, tmp_path: Path) -> None:
    fire = Fire(chain, tmp_path, SEED)
    await fire.burn(FIRE_SECONDS)
    await fire.check()
    fire_row(f"{FIRE_SECONDS} s of fire, {kind}", fire)


async def test_reload_after_reload(chain: Chain, kind: str, tmp_path: Path) -> None:
    fire = Fire(chain, tmp_path, SEED)
    pause = (RELOAD_SECONDS, RELOAD_SECONDS)
    fire.arsonist = Arsonist(chain, SEED, pause, {"HUP": 1})
    await fire.burn(RELOADS * RELOAD_SECONDS)
    await fire.check()
    fire_row(f"{RELOADS} reloads, {kind}", fire)


async def test_connections_are_cut_and_memory_stays(chain: Chain, kind: str, tmp_path: Path) -> None:
    """No worker dies here, so that one that leaks is found out."""
    fire = Fire(chain, tmp_path, SEED, cut_every=15)
    fire.arsonist = Arsonist(chain, SEED, (CUT_SECONDS, CUT_SECONDS), {"CONT": 1})
    await fire.burn(CUT_SECONDS)
    await fire.check()
    fire_row(f"{CUT_SECONDS} s of cut connections, {kind}", fire)


async def test_rollout_after_rollout() -> None:
    with RedisServer() as redis:
        rollout = Rollout(redis.url, rounds=ROLLOUTS)
        await rollout.run()
    assert rollout.sdk == {"complete": ROLLOUTS * SDK_CLIENTS}
    assert [line for log in rollout.logs for line in wrong_lines(log)] == []
    journals = [client.journal for client in rollout.clients]
    connections = sum(journal.connections for journal in journals)
    silence = max(journal.silence_seconds_max for journal in journals)
    log = "".join(rollout.logs)
    row(f"{ROLLOUTS} rollouts, redis", rollout.reasons, len(journals), connections, log, 0, silence, "")
