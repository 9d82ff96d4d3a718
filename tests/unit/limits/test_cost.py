"""What it costs a request to be known and counted: CPU time of this process, the cheapest of several rounds, since
neighbours only ever make it dearer. `python -m loadtests.bench.access` says the same of every store."""

from pathlib import Path

import uvloop

from loadtests.bench.access import Cost, check_cost
from tests.support.redis import RedisServer

MICROSECONDS_MAX = 150
REQUESTS = 1_000


def test_a_request_is_known_and_counted_in_redis_for_less_than_150_microseconds(
    redis: RedisServer, tmp_path: Path
) -> None:
    found = uvloop.run(check_cost(tmp_path, redis.url, REQUESTS))
    print(found)
    assert isinstance(found, Cost), found
    assert found.least <= MICROSECONDS_MAX
